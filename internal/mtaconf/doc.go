// Package mtaconf reads how an MTA is told to ask milters, and tells Postfix to ask
// ours: the parameters of main.cf and master.cf that concern milters, through
// postconf(1), and the X lines of a sendmail.cf.
//
// Nothing is changed but by Postfix.Apply and Postfix.Undo. Left out are lists per
// client (smtpd_milter_maps) and Sendmail's InputMailFilters of one listener
// (DaemonPortOptions).
package mtaconf
