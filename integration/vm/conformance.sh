#!/bin/sh
# In the guest, in /job/files: conformance programs that need a machine with AppArmor and every
# capability.
set -eu
cp -a root/. /
[ -e /sys/kernel/security/apparmor ] || mount -t securityfs none /sys/kernel/security
echo 'profile acme_secure_profile { file, capability, network, mount, signal, ptrace, unix, }' |
    apparmor_parser --replace --skip-cache
exec python3 src/integration/conformance/run.py conformance /usr/local/bin/pyrunc "$@"
