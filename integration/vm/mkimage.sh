#!/usr/bin/env bash
# mkimage.sh -o DIR -a ARCH -s SUITE -k KERNEL_SUITE -m MIRROR [-p PACKAGE,PACKAGE...]
#
# Make a bootable machine of Debian's packages: DIR/vmlinuz, DIR/initrd, DIR/root.img (sparse ext4).  Needs root, mmdebstrap, kmod
# and mke2fs, and for a foreign architecture qemu-user-static.  machine.py opens the image with snapshot=on only: it stays as made here.
set -eu -o pipefail
while getopts o:a:s:k:m:p: option; do
    case $option in
        o) out=$OPTARG ;;
        a) arch=$OPTARG ;;
        s) suite=$OPTARG ;;
        k) kernel_suite=$OPTARG ;;
        m) mirror=$OPTARG ;;
        p) extra=$OPTARG ;;
        *) exit 2 ;;
    esac
done
here=$(cd "$(dirname "$0")" && pwd)

# Foreign package scripts run in an emulator that the kernel starts for them.  It is registered in a mount of our own, which since Linux
# 6.7 takes the registration with it when it goes.
emulator=/proc/sys/fs/binfmt_misc/qemu-aarch64
if [ "$arch" = arm64 ] && [ "$(uname -m)" != aarch64 ] && [ ! -e $emulator ]; then
    if [ -z "${MKIMAGE_OWN_MOUNTS:-}" ]; then
        exec unshare -m env MKIMAGE_OWN_MOUNTS=1 "$0" "$@"
    fi
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    # ELF, 64 bit, little endian, EM_AARCH64; F: opened now, so that it is also found below a chroot
    [ -e $emulator ] || printf '%s' ':qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:OCF' \
        >/proc/sys/fs/binfmt_misc/register
fi

mkdir -p "$out"
tmp=$(mktemp -d "$out/build.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM

# -- the root file system ---------------------------------------------------------------------------------------------------
packages=systemd,systemd-sysv,libpam-systemd,dbus,dbus-user-session,udev,kmod,util-linux,uidmap,procps,iproute2
packages=$packages,busybox-static,strace,tar,python3,libcap2,runc${extra:+,$extra}
root=$tmp/root
# Modules need not be compiled ahead where few are used: with emulation that is most of the time.
mmdebstrap --mode=root --arch="$arch" --variant=minbase \
    --aptopt='Acquire::Languages "none"' --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Retries "3"' \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/bin/py3compile' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include="$packages" "$suite" "$root" "$mirror"

# -- the kernel: unpacked, never configured, so that no initramfs is made -------------------------------------------------------
mmdebstrap --mode=root --arch="$arch" --variant=extract --aptopt='Acquire::Retries "3"' \
    --include="linux-image-cloud-$arch" "$kernel_suite" "$tmp/kernel" "$mirror"
modules=$(find "$tmp/kernel/lib" "$tmp/kernel/usr/lib" -maxdepth 2 -path '*/modules/*' 2>/dev/null | head -n 1) || true
version=$(basename "$modules")
mkdir -p "$root/lib/modules"
cp -a "$modules" "$root/lib/modules/"
depmod -b "$root" "$version"

# -- what runs in it ---------------------------------------------------------------------------------------------------------------
install -m 0755 "$here/agent.sh" "$root/usr/local/sbin/vm-agent"
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
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
echo vm >"$root/etc/hostname"
echo "127.0.0.1 localhost vm" >"$root/etc/hosts"
: >"$root/etc/fstab"
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nAudit=no\n' >"$root/etc/systemd/journald.conf.d/vm.conf"
# A user with subordinate ids whose service manager runs without a login.
chroot "$root" useradd -m -s /bin/sh -u 1000 tester
for file in subuid subgid; do
    grep -q '^tester:' "$root/etc/$file" || echo tester:100000:65536 >>"$root/etc/$file"
done
mkdir -p "$root/var/lib/systemd/linger"
: >"$root/var/lib/systemd/linger/tester"

# -- initramfs: a static busybox and the modules that the disk and the ports need ---------------------------------------------------
early=$tmp/initramfs
mkdir -p "$early"/{bin,dev,proc,root,lib}
cp "$root/bin/busybox" "$early/bin/busybox"
for applet in sh mount insmod switch_root sleep; do
    ln -s busybox "$early/bin/$applet"
done
install -m 0755 "$here/initramfs.sh" "$early/init"
: >"$early/lib/order"
for module in virtio_mmio virtio_pci virtio_blk virtio_console ext4; do
    # "insmod PATH" in the order of dependencies; built-in ones are told otherwise
    modprobe -d "$root" -S "$version" --show-depends "$module" 2>/dev/null || true
done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r file; do
    name=$(basename "$file")
    name=${name%%.ko*}.ko
    case $file in
        *.xz) xz -dc "$file" ;;
        *.zst) zstd -qdc "$file" ;;
        *.gz) gzip -dc "$file" ;;
        *) cat "$file" ;;
    esac >"$early/lib/$name"
    echo "$name" >>"$early/lib/order"
done
(cd "$early" && find . | busybox cpio -o -H newc 2>/dev/null) >"$tmp/initrd"

# -- the image: no journal, since the machine only ever writes to a throw-away overlay ------------------------------------------------
truncate -s 3G "$tmp/root.img"
mke2fs -q -F -t ext4 -O '^has_journal,^metadata_csum' -E lazy_itable_init=1 -d "$root" "$tmp/root.img"
cp "$tmp/kernel/boot/vmlinuz-$version" "$tmp/vmlinuz"
mv "$tmp/vmlinuz" "$tmp/initrd" "$tmp/root.img" "$out/"
echo "made $out: $arch, $suite, kernel $version"
