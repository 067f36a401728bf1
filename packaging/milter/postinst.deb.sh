#!/bin/sh
set -e

for_postfix() {
	# Where Postfix came after us, the sockets are not its own yet. -h: a link is not
	# followed.
	chgrp -h postfix /run/authkey/milter.sock /var/spool/postfix/authkey/milter.sock 2>/dev/null || true
}

next_steps() {
	cat <<'TEXT'

authkey-milter is installed, in mode: test, which refuses nothing. No mail comes to it
before your mail system is told:

    authkey-milter setup postfix --apply && postfix reload
    authkey-milter doctor

or, with Sendmail, authkey-milter setup sendmail. What to do then is in
/usr/share/doc/authkey-milter/README.Debian, and the documents are beside it.

TEXT
}

# First installed, or again after it was removed, when its entry went out of main.cf and
# its units were masked.
new=
if [ -z "${2:-}" ] || [ "$(readlink /etc/systemd/system/authkey-milter.service 2>/dev/null)" = /dev/null ]; then
	new=yes
fi

case "$1" in
configure | abort-upgrade | abort-deconfigure | abort-remove)
	systemd-sysusers ${DPKG_ROOT:+--root="$DPKG_ROOT"} authkey-milter.conf
	systemd-tmpfiles ${DPKG_ROOT:+--root="$DPKG_ROOT"} --create authkey-milter.conf || true

	for unit in authkey-milter.socket authkey-milter.service; do
		deb-systemd-helper unmask "$unit" >/dev/null || true
		if deb-systemd-helper --quiet was-enabled "$unit"; then
			deb-systemd-helper enable "$unit" >/dev/null || true
		else
			deb-systemd-helper update-state "$unit" >/dev/null || true
		fi
	done

	# Before the service starts, which asks for the profile by name.
	if [ -z "${DPKG_ROOT:-}" ] && [ -f /etc/apparmor.d/usr.sbin.authkey-milter ]; then
		if [ ! -e /etc/apparmor.d/local/usr.sbin.authkey-milter ]; then
			mkdir -p /etc/apparmor.d/local
			install -m 0644 /dev/null /etc/apparmor.d/local/usr.sbin.authkey-milter
		fi
		if aa-enabled --quiet 2>/dev/null; then
			apparmor_parser -r -T -W /etc/apparmor.d/usr.sbin.authkey-milter || true
		fi
	fi

	if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
		systemctl --system daemon-reload >/dev/null || true
		# The sockets stay over an upgrade: MTAs wait for the moment that it takes.
		deb-systemd-invoke start authkey-milter.socket >/dev/null || true
		if [ -n "$2" ]; then
			deb-systemd-invoke restart authkey-milter.service >/dev/null || true
		else
			deb-systemd-invoke start authkey-milter.service >/dev/null || true
		fi
		for_postfix
	fi
	if [ "$1" = configure ] && [ -n "$new" ]; then
		next_steps
	fi
	;;
triggered)
	for_postfix
	;;
esac
