dnl authkey-milter for Sendmail. In sendmail.mc, before the MAILER lines, behind filters
dnl that verify SPF, DKIM and DMARC and before those that scan or sign:
dnl
dnl     include(`/usr/share/authkey-milter/authkey.m4')dnl
dnl
dnl While the milter is down mail waits (F=T). In mode: test let it go by, with
dnl define(`confAUTHKEY_TEST', `1')dnl before the include.
ifdef(`confAUTHKEY_TEST',
`INPUT_MAIL_FILTER(`authkey', `S=unix:/run/authkey/milter.sock, T=S:30s;R:30s;E:60s')',
`INPUT_MAIL_FILTER(`authkey', `S=unix:/run/authkey/milter.sock, F=T, T=S:30s;R:30s;E:60s')')dnl
