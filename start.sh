#!/usr/bin/env bash
# Runs SmartProxy in the background: ./start.sh start|stop|restart|status|logs|backup [--debug]
#
#   SMARTPROXY_CONFIG   configuration file (default: ./config.ini when there is one)
#   SMARTPROXY_BIN      the program (default: the release build in target/, built when missing)
set -euo pipefail
cd "$(dirname "$0")"

usage() { sed -n '2s/^# //p' "$0" >&2; exit 2; }
command=${1:-}
[ -n "$command" ] || usage
shift
debug=()
for argument in "$@"; do
    case $argument in
        --debug) debug=(--debug) ;;
        *) usage ;;
    esac
done

config=()
[ -z "${SMARTPROXY_CONFIG:-}" ] || config=(--config "$SMARTPROXY_CONFIG")
pid_file=${SMARTPROXY_PID_FILE:-./smartproxy.pid}
log_file=${SMARTPROXY_LOG_FILE:-./logs/smartproxy.out}

program() {
    if [ -n "${SMARTPROXY_BIN:-}" ]; then echo "$SMARTPROXY_BIN"; return; fi
    if [ ! -x target/release/smartproxy ]; then
        echo "building smartproxy (once)" >&2
        cargo build --release --locked >&2
    fi
    echo target/release/smartproxy
}

# The process that this script started and that still runs, if any. A number may belong to another program by now: ours
# has "serve" in its command line, whatever its file is called.
running() {
    [ -f "$pid_file" ] || return 1
    local pid
    pid=$(cat "$pid_file")
    [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q ' serve ' || return 1
    echo "$pid"
}

start() {
    local pid bin
    if pid=$(running); then echo "smartproxy is already running (process $pid)"; return; fi
    bin=$(program)
    # Without this check the answer of the other one would pass for that of ours.
    if "$bin" "${config[@]}" status 2>/dev/null; then echo "it was not started by this script"; return; fi
    mkdir -p "$(dirname "$log_file")"
    # Its own session, so that it outlives this terminal.
    setsid nohup "$bin" "${config[@]}" "${debug[@]}" serve >>"$log_file" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$pid_file"
    # Up when it knows what it knew, failed when it ended; whichever comes first. A database that is away is waited for,
    # which may take long.
    local status
    for _ in $(seq 1 300); do
        if ! kill -0 "$pid" 2>/dev/null; then
            rm -f "$pid_file"
            echo "smartproxy did not start; the end of $log_file:" >&2
            tail -n 15 "$log_file" >&2
            exit 1
        fi
        status=$("$bin" "${config[@]}" status 2>/dev/null || true)
        case $status in
            *"store            works"*)
                echo "smartproxy started (process $pid), log: $log_file"
                return
                ;;
            *"store            away"*)
                echo "smartproxy started (process $pid) and waits for its database, log: $log_file"
                return
                ;;
        esac
        sleep 0.1
    done
    echo "smartproxy runs (process $pid) and is not ready yet; log: $log_file"
}

stop() {
    local pid
    if ! pid=$(running); then
        rm -f "$pid_file"
        # One that was started without this script stops as well.
        "$(program)" "${config[@]}" stop 2>/dev/null || echo "smartproxy is not running"
        return
    fi
    "$(program)" "${config[@]}" backup || echo "the backup failed; the service writes one when it stops" >&2
    kill "$pid"
    for _ in $(seq 1 1200); do
        if ! kill -0 "$pid" 2>/dev/null; then
            rm -f "$pid_file"
            echo "smartproxy stopped"
            return
        fi
        sleep 0.1
    done
    echo "smartproxy (process $pid) was told to stop and still runs" >&2
    exit 1
}

case $command in
    start) start ;;
    stop) stop ;;
    restart) stop; start ;;
    status)
        if pid=$(running); then exec "$(program)" "${config[@]}" status; fi
        echo "smartproxy is not running"
        exit 3
        ;;
    logs) exec tail -n 100 -F "$log_file" ;;
    backup) exec "$(program)" "${config[@]}" backup ;;
    *) usage ;;
esac
