#!/busybox sh
# The first program of the virtual machine. The machine's own file system becomes the root, with memory above it for
# all that is written; then the tests run, and their outcome is told on the third serial line.
end() {
	echo "$1" >/dev/ttyS2
	echo o >/proc/sysrq-trigger
	while :; do read -r _ </dev/ttyS0; done
}

b=/busybox
if [ "$1" != inside ]; then
	$b mount -t devtmpfs dev /dev
	$b mount -t proc proc /proc
	for module in /modules/*; do $b insmod "$module" 2>/dev/ttyS0; done
	$b mount -t virtiofs -o ro machine /below || end "cannot mount the machine's file system"
	$b mount -t tmpfs -o mode=755 above /above
	$b mkdir /above/upper /above/work
	$b mount -t overlay -o lowerdir=/below,upperdir=/above/upper,workdir=/above/work root /root ||
		end "cannot mount an overlay over the machine's file system"
	# Over the machine's own ones, which the server of its files lets through.
	$b mount -t proc proc /root/proc && $b mount -t sysfs sys /root/sys || end "cannot hide the machine's /proc and /sys"
	$b mount -t tmpfs -o mode=755 memory /root/run
	$b mkdir -p /root/lib/modules /root/run/sluice-kernels
	$b cp /init /environment /root/run/sluice-kernels
	$b umount /proc
	$b mount --move /dev /root/dev
	exec $b switch_root /root /bin/sh /run/sluice-kernels/init inside
fi

. /run/sluice-kernels/environment
# Here is a kernel that has what tests look for: without it, they fail.
export SLUICE_TEST_WHOLE=1
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 memory /dev/shm
# A workspace in /tmp is left to be seen; what is written there is in memory all the same.
case "$SLUICE_ROOT" in
/tmp/*) ;;
*) mount -t tmpfs -o mode=1777 memory /tmp ;;
esac
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs trace /sys/kernel/tracing
mount --bind "$SLUICE_MODULES" /lib/modules
ip link set lo up
exec </dev/null >/dev/ttyS1 2>&1
echo "Linux $(uname -r)"
cd "$SLUICE_ROOT" || end "no $SLUICE_ROOT in the virtual machine"
eval "$SLUICE_COMMAND"
end "exit $?"
