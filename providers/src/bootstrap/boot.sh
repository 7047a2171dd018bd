# Everything below lies there, for root alone.
umask 077
mkdir -p @FOLDER@
cd @FOLDER@ || exit 1

# Ends the machine: in good order if the system can, at once if it does not.
cat >power-off <<'BURSAR'
systemctl --no-block poweroff 2>/dev/null || poweroff 2>/dev/null || shutdown -P now 2>/dev/null
sleep 20
poweroff -f
sleep 5
echo 1 >/proc/sys/kernel/sysrq
echo o >/proc/sysrq-trigger
BURSAR

# The shutdown timer: sleeps until the second since boot that `timer` holds, and looks whether it was moved on meanwhile.
# The agent ends everything by then; two seconds later it has hung.
cat >watch-lease <<'BURSAR'
while :; do
  now=$(cut -d. -f1 /proc/uptime)
  at=$(cat timer) && [ "$at" -ge 0 ] 2>/dev/null || at=0
  left=$((at + 2 - now))
  [ "$left" -gt 0 ] || break
  sleep "$left"
done
echo "bursar: the lease is over"
exec sh power-off
BURSAR

# Fetches the agent, runs it, and ends the machine when it ends or cannot be had.
cat >run-agent <<'BURSAR'
fetch() {
  if command -v curl >/dev/null; then
    curl -fsS --noproxy '*' --connect-timeout 5 --max-time 120 -o "$2" "$1"
  elif command -v wget >/dev/null; then
    wget -q --no-proxy -T 20 -t 1 -O "$2" "$1"
  else
    timeout 120 python3 -c 'import sys, urllib.request as u
u.install_opener(u.build_opener(u.ProxyHandler({})))
open(sys.argv[2], "wb").write(u.urlopen(sys.argv[1], timeout=20).read())' "$1" "$2"
  fi
}
arch=$(uname -m)
sha256=
case $arch in
@BINARIES@
esac
[ -n "$sha256" ] || echo "bursar: there is no agent for $arch"
# Two minutes of refusals, or two hours of downloads that break off: the timer ends it before.
tries=60
while [ -n "$sha256" ] && [ "$tries" -gt 0 ]; do
  tries=$((tries - 1))
  if fetch @URL@/"$arch" agent.new && echo "$sha256  agent.new" | sha256sum -c - >/dev/null; then
    mv agent.new agent
    chmod 700 agent
    echo "bursar: the agent starts"
    ./agent settings.json
    echo "bursar: the agent ended with $?"
    break
  fi
  echo "bursar: no agent yet, $tries tries left"
  sleep 2
done
exec sh power-off
BURSAR

# Starts one of them beside the boot, which must not wait for it: as a service, or where there is no systemd as a session.
start() {
  script=$1
  shift
  systemd-run --quiet --unit="bursar-$script" --property=WorkingDirectory=@FOLDER@ "$@" sh "$script" 2>/dev/null && return
  setsid sh "$script" >>"$script.log" 2>&1 </dev/null &
}

now=$(date +%s)
left=$((@LEASE_UNTIL@ - now))
# A clock that is wrong must not make the lease longer than it is.
[ "$left" -le @LEASE_SECS@ ] || left=@LEASE_SECS@
[ "$left" -ge 0 ] || left=0
# At a second boot the timer before counts from another zero, and the secret is spent: there is nothing to go on with.
[ ! -e booted ] || left=0
echo $(($(cut -d. -f1 /proc/uptime) + left)) >timer
start watch-lease --property=Restart=always --property=OOMScoreAdjust=-900
[ ! -e booted ] || exit 0
: >booted

# Which of those that were launched together this is.
@WHICH@
[ -n "$instance" ] || exec sh power-off
printf '%s' @SETTINGS_BEFORE@"$instance"@SETTINGS_AFTER@ >settings.json
printf '%s' "$secret" >secret
start run-agent --property=FailureAction=poweroff-force --property=Delegate=yes \
  --property=TasksMax=infinity --property=LimitNOFILE=524288
