#!/bin/sh
set -e

if [ "$1" = remove ] && [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
	deb-systemd-invoke stop authkey-server-retry.timer authkey-server.service >/dev/null || true
fi
