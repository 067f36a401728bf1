// Package mtaconf reads how an MTA is told to ask milters, and tells Postfix to ask
// ours: the parameters of main.cf and master.cf that concern milters, through
// postconf(1), and the X lines of a sendmail.cf.
//
// Only Postfix.Apply, Postfix.Undo and UndoPostfix change anything. Losses finds parameters
// of Postfix, other than its lists of milters, that keep the milter from doing a part of its
// work.
package mtaconf
