systemd-sysusers authkey-server.conf >/dev/null 2>&1 || :
systemd-tmpfiles --create authkey-server.conf >/dev/null 2>&1 || :
systemctl daemon-reload >/dev/null 2>&1 || :
