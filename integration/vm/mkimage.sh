#!/usr/bin/env bash
# mkimage.sh -o DIR -a ARCH -s SUITE -k KERNEL_SUITE -m MIRROR [-p PACKAGE,PACKAGE...]
#
# Make a bootable machine of Debian's packages: DIR/vmlinuz, DIR/initrd, DIR/root.img (sparse ext4).
# Needs root, mmdebstrap, kmod and mke2fs. machine.py opens the image with snapshot=on only: it
# stays as made here.
#
# Packages of a foreign architecture are unpacked and not configured, since their scripts cannot run
# here (in an emulator they would take ten minutes and more). That is enough for all but systemd.
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

mkdir -p "$out"
tmp=$(mktemp -d "$out/build.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM

# -- the root file system --------------------------------------------------------------------------
root=$tmp/root
# A mirror may be behind: its signature counts, not its date.
fetch=(mmdebstrap --mode=root --arch="$arch" --skip=check/qemu --aptopt='Acquire::Languages "none"'
    --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Retries "3"')
packages=kmod,util-linux,procps,iproute2,busybox-static,strace,tar,python3,libcap2,runc,apparmor,secilc${extra:+,$extra}
foreign=
if [ "$arch" != "$(dpkg --print-architecture)" ]; then
    foreign=1
    "${fetch[@]}" --variant=extract --include='?essential' --include="$packages" "$suite" "$root" "$mirror"
else
    packages=$packages,systemd,systemd-sysv,libpam-systemd,dbus,dbus-user-session,udev,uidmap
    # Modules need not be compiled ahead where few are used: with emulation that is most of the
    # time.
    "${fetch[@]}" --variant=minbase --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/bin/py3compile' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --include="$packages" "$suite" "$root" "$mirror"
fi

# -- the kernel: unpacked, never configured, so that no initramfs is built -------------------------
"${fetch[@]}" --variant=extract --include="linux-image-cloud-$arch" "$kernel_suite" "$tmp/kernel" "$mirror"
modules=$(find "$tmp/kernel/lib" "$tmp/kernel/usr/lib" -maxdepth 2 -path '*/modules/*' 2>/dev/null | head -n 1) || true
version=$(basename "$modules")
mkdir -p "$root/lib/modules"
cp -a "$modules" "$root/lib/modules/"
depmod -b "$root" "$version"

# -- what runs in it -------------------------------------------------------------------------------
install -D -m 0755 "$here/agent.sh" "$root/usr/local/sbin/vm-agent"
mkdir -p "$root"/{proc,sys,dev,run,tmp,etc,root}
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
echo vm >"$root/etc/hostname"
echo "127.0.0.1 localhost vm" >"$root/etc/hosts"
: >"$root/etc/fstab"
if [ -n "$foreign" ]; then
    # What package scripts would have made of it.
    for file in passwd group; do
        [ -e "$root/etc/$file" ] || cp "$root/usr/share/base-passwd/$file.master" "$root/etc/$file"
    done
    [ -e "$root/bin/sh" ] || ln -s dash "$root/bin/sh"
    [ -e "$root/usr/bin/awk" ] || ln -s mawk "$root/usr/bin/awk"
    [ -e "$root/usr/bin/cc" ] || ln -s gcc "$root/usr/bin/cc"
else
    . "$here/systemd.sh"
fi

# -- initramfs: a static busybox and the modules that the disk and the ports need ------------------
early=$tmp/initramfs
mkdir -p "$early"/{bin,dev,proc,root,lib}
cp "$root/bin/busybox" "$early/bin/busybox"
for applet in sh mount insmod switch_root sleep; do
    ln -s busybox "$early/bin/$applet"
done
install -m 0755 "$here/initramfs.sh" "$early/init"
: >"$early/lib/order"
for module in virtio_mmio virtio_pci virtio_blk virtio_console ext4; do
    # "insmod PATH" in the order of dependencies; built-in ones are printed differently
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

# -- the image: no journal, since the machine only ever writes to a throw-away overlay -------------
truncate -s 3G "$tmp/root.img"
mke2fs -q -F -t ext4 -O '^has_journal,^metadata_csum' -E lazy_itable_init=1 -d "$root" "$tmp/root.img"
cp "$tmp/kernel/boot/vmlinuz-$version" "$tmp/vmlinuz"
mv "$tmp/vmlinuz" "$tmp/initrd" "$tmp/root.img" "$out/"
echo "made $out: $arch, $suite, kernel $version"
