if [ "$1" -eq 0 ]; then
	systemctl --no-reload disable --now authkey-milter.service authkey-milter.socket >/dev/null 2>&1 || :
fi
