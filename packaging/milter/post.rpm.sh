systemd-sysusers authkey-milter.conf >/dev/null 2>&1 || :
systemd-tmpfiles --create authkey-milter.conf >/dev/null 2>&1 || :
if [ "$1" -eq 1 ]; then
	systemctl preset authkey-milter.socket authkey-milter.service >/dev/null 2>&1 || :
	cat <<'TEXT'

authkey-milter is installed. To start it, in mode: test, and to tell your mail system:

    systemctl enable --now authkey-milter
    authkey-milter setup postfix --apply && postfix reload
    authkey-milter doctor

or, with Sendmail, authkey-milter setup sendmail. The documents are in
/usr/share/doc/authkey-milter.

TEXT
fi
