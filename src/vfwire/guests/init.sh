#!/bin/sh
# All that is ours in the guest: mount, load drivers, set addresses, answer commands, a shell on the console.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/busybox HOME=/root TERM=vt100
/bin/busybox --install -s /busybox
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t debugfs debugfs /sys/kernel/debug 2>/run/debugfs

# A port reads one command a line, "<seconds> <base64>", and answers "<exit code> <base64 of its output>".
serve() {
    exec 3<>"$1"
    echo ready >&3
    while read -r seconds command <&3; do
        echo "$command" | base64 -d >"/run/$2.command"
        timeout -s KILL "$seconds" /usr/bin/sh "/run/$2.command" >"/run/$2.output" 2>&1 </dev/null 3>&-
        code=$?
        echo "$code $(base64 -w 0 "/run/$2.output")" >&3
    done
}

# What udev does: a module for whatever says that it wants one.
find /sys/devices -name modalias -exec cat {} + | sort -u | xargs /usr/sbin/modprobe -a -b -q

hostname guest
ip link set lo up
for word in $(cat /proc/cmdline); do
    case $word in
    vfwire.name=*) hostname "${word#*=}" ;;
    vfwire.address=*)
        interface=${word#*=} addresses=${word#*=*:} interface=${interface%%:*}
        ip link set "$interface" up
        for address in $(echo "$addresses" | tr , ' '); do
            ip address add "$address" dev "$interface" $(case $address in *:*) echo nodad ;; esac)
        done
        ;;
    esac
done

for port in /sys/class/virtio-ports/*; do
    case $(cat "$port/name" 2>/run/no-port) in
    vfwire.*) serve "/dev/${port##*/}" "${port##*/}" & ;;
    esac
done

for device in /sys/bus/pci/devices/*; do
    [ "$(cat "$device/class")" = 0x020000 ] && [ ! -e "$device/driver" ] &&
        echo "vfwire: no driver for ${device##*/} ($(cat "$device/vendor"):$(cat "$device/device"))"
done

echo "vfwire: up after $(cut -d ' ' -f 1 /proc/uptime) s; leave the shell to end the guest"
cd /root
setsid cttyhack bash -l
poweroff -f
