if [ "$1" -eq 0 ]; then
	systemctl --no-reload disable --now authkey-server.service >/dev/null 2>&1 || :
	systemctl stop authkey-server-retry.timer >/dev/null 2>&1 || :
fi
