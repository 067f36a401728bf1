systemd-sysusers authkey-server.conf >/dev/null 2>&1 || :
systemd-tmpfiles --create authkey-server.conf >/dev/null 2>&1 || :
systemctl daemon-reload >/dev/null 2>&1 || :
if [ "$1" -eq 1 ]; then
	cat <<'TEXT'

authkey-server is installed, neither enabled nor running. For a domain of yours, and the
name under which this machine is reached:

    authkey-server init example.com --host as.example.com
    authkey-server address add bob@example.com
    systemctl enable --now authkey-server

init says what else there is to do. The documents are in /usr/share/doc/authkey-server.

TEXT
fi
