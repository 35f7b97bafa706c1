#!/bin/sh
mount -t devtmpfs dev /dev
while read -r module; do insmod "/lib/$module"; done </lib/order
n=0
while [ ! -b /dev/vda ] && [ $n -lt 500 ]; do
    sleep 0.02
    n=$((n + 1))
done
mount -t ext4 -o rw,noatime /dev/vda /root || { echo "no root disk"; exit 1; }
mount --move /dev /root/dev
exec switch_root /root "${VMINIT:-/sbin/init}"
