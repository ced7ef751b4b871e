#!/bin/sh
# Runs the host's scripts in the guest. Requests and answers are lines on a virtio serial port, bodies and output are files
# in the share:
#
#     host to guest   run ID        run ID.sh, output to ID.out and ID.err
#                     kill ID       end it and all that it started
#     guest to host   ready
#                     exit ID STATUS
#
# Each script has a control group of its own, so that no child escapes a kill. Few programs are started per script: one
# costs 50 ms here if it is dynamic, 15 ms if static.
#
# Process 1 only collects orphans; the agent is its child. The port's end means that the host process is gone: the guest
# then stops by itself.
share=$(dirname "$0")
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
export TMPDIR=/tmp SHARE="$share"

if [ $$ = 1 ]; then
  exec </dev/null
  sh "$0" &
  wait $!
  echo "agent: the host is gone"
  exec busybox reboot -f
fi

port=
for name in /sys/class/virtio-ports/*/name; do
  [ "$(cat "$name")" = pando.agent ] || continue
  port=${name%/name}
  port=/dev/${port##*/}
done
exec 3<>"$port" || exit 1
jobs=/sys/fs/cgroup/pando
mkdir "$jobs" "$jobs/job1"
cd /root || cd /

echo ready >&3
while read -r verb id <&3; do
  case $verb in
    run)
      (
        (
          echo 0 >"$jobs/$id/cgroup.procs"
          exec sh "$share/$id.sh" </dev/null >"$share/$id.out" 2>"$share/$id.err" 3>&-
        )
        echo "exit $id $?" >&3
      ) &
      # Ids are job1, job2, …: the next one's group is made while nobody waits for it.
      busybox mkdir "$jobs/job$((${id#job} + 1))"
      ;;
    kill)
      echo 1 >"$jobs/$id/cgroup.kill"
      ;;
  esac
done
