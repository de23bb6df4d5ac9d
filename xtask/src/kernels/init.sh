#!/busybox sh
# The first program of the virtual machine. The machine's own file system becomes the root, with memory above it for
# all that is written; then the tests run, and their outcome is told on the third serial line.
b=/busybox
end() {
	echo "$1" >/dev/ttyS2
	echo o >/proc/sysrq-trigger
	while :; do $b sleep 1; done
}

if [ "$1" != inside ]; then
	$b mount -t devtmpfs dev /dev
	$b mount -t proc proc /proc
	for module in /modules/*; do $b insmod "$module" 2>/dev/ttyS0; done
	$b mount -t virtiofs -o ro machine /below || end "cannot mount the machine's file system"
	$b mount -t tmpfs -o mode=755 above /above
	$b mkdir /above/upper /above/work /above/tools
	$b cp /busybox /init /environment /above/tools
	$b mount -t overlay -o lowerdir=/below,upperdir=/above/upper,workdir=/above/work root /root ||
		end "cannot mount an overlay over the machine's file system"
	$b mkdir -p /root/lib/modules /root/.tools
	$b mount --bind /above/tools /root/.tools
	$b umount /proc
	$b mount --move /dev /root/dev
	exec $b switch_root /root /.tools/busybox sh /.tools/init inside
fi

b=/.tools/busybox
. /.tools/environment
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
for folder in /dev/shm /run /tmp; do mount -t tmpfs -o mode=1777 memory "$folder"; done
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
