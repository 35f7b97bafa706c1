# shellcheck shell=bash
# Sourced by mkimage.sh: systemd as init of the file system in $root, quick to start, with the agent as a service.
units=$root/etc/systemd/system
mkdir -p "$units/multi-user.target.wants"
install -m 0644 "$here/agent.service" "$units/vm-agent.service"
ln -sf ../vm-agent.service "$units/multi-user.target.wants/"
# Nothing of a login, a network, a journal on disk, or a timer is needed, and each costs seconds.
for unit in getty.target getty@tty1.service serial-getty@ttyS0.service serial-getty@ttyAMA0.service \
    systemd-timesyncd.service systemd-networkd.service systemd-resolved.service systemd-update-utmp.service \
    systemd-random-seed.service systemd-binfmt.service systemd-hwdb-update.service systemd-udev-settle.service \
    systemd-journal-flush.service systemd-firstboot.service systemd-pstore.service systemd-machine-id-commit.service \
    ldconfig.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer systemd-tmpfiles-clean.timer dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount; do
    ln -sf /dev/null "$units/$unit"
done
ln -sf /lib/systemd/system/multi-user.target "$units/default.target"
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nAudit=no\n' >"$root/etc/systemd/journald.conf.d/vm.conf"
# A user with subordinate ids whose service manager runs without a login.
chroot "$root" useradd -m -s /bin/sh -u 1000 tester
for file in subuid subgid; do
    grep -q '^tester:' "$root/etc/$file" || echo tester:100000:65536 >>"$root/etc/$file"
done
mkdir -p "$root/var/lib/systemd/linger"
: >"$root/var/lib/systemd/linger/tester"

