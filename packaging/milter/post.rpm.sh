systemd-sysusers authkey-milter.conf >/dev/null 2>&1 || :
systemd-tmpfiles --create authkey-milter.conf >/dev/null 2>&1 || :
if [ "$1" -eq 1 ]; then
	systemctl preset authkey-milter.socket authkey-milter.service >/dev/null 2>&1 || :
fi
