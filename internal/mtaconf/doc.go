// Package mtaconf reads how an MTA is told to ask milters, and tells Postfix to ask
// ours: the parameters of main.cf and master.cf that concern milters, through
// postconf(1), and the X lines of a sendmail.cf.
//
// Nothing is changed but by Postfix.Apply, Postfix.Undo and UndoPostfix. Losses finds
// what Postfix's configuration takes from the milter by other parameters than its lists.
package mtaconf
