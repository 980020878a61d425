#!/usr/bin/env bash
# N processes of a command on this machine, as a cluster would run them; GPUs are divided among them, CPUs shared:
#
#   launch/local.sh 2 python -m skullgan_jax.main --distributed --config=configs/skull.py --workdir=runs/skull
#   launch/local.sh 4 python -m skullgan_jax.sample --model=runs/skull --num=100000 --output=skulls.npy
#
# SIGTERM, Ctrl-C or a closed terminal: SIGTERM to all. Exits with the status of the first that failed, or 0.
# Edit: the seconds that the processes have to end, after a signal or once one has failed, before they are killed.
grace=${GRACE:-90}

fail() { echo "launch/local.sh: $1" >&2; exit 2; }
count=$1
[[ $count =~ ^[1-9][0-9]*$ && $# -ge 2 ]] || fail "usage: launch/local.sh N COMMAND ..., N processes of that command"
shift

gpus=()
if [[ ${JAX_PLATFORMS:-} != cpu ]]; then
  here=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | paste -sd, -)
  IFS=, read -ra gpus <<<"${CUDA_VISIBLE_DEVICES-$here}"
fi
each=$((${#gpus[@]} / count))
((each * count == ${#gpus[@]})) || fail "${#gpus[@]} GPUs do not divide over $count processes; see CUDA_VISIBLE_DEVICES"

# A free port below those that the system gives to outgoing connections.
port=$((20000 + RANDOM % 10000))
while (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
export JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_NUM_PROCESSES=$count

pids=() end=
# As SIGTERM also at Ctrl-C, which a process in the background does not get, or gets from the terminal already.
trap 'end=${end:-$((SECONDS + grace))}; kill -TERM "${pids[@]}" 2>/dev/null' TERM INT HUP
for ((i = 0; i < count; i++)); do
  if ((each)); then
    CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${gpus[*]:i*each:each}")
    export CUDA_VISIBLE_DEVICES
  fi
  JAX_PROCESS_ID=$i "$@" &
  pids+=($!)
done

status=0
running=("${pids[@]}")
while ((${#running[@]})); do
  left=()
  for pid in "${running[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      left+=("$pid")
    else
      wait "$pid"
      code=$?
      if ((code && !status)); then status=$code end=${end:-$((SECONDS + grace))}; fi
    fi
  done
  running=("${left[@]}")
  if [[ $end ]] && ((SECONDS >= end)); then kill -KILL "${running[@]}" 2>/dev/null; fi
  sleep 0.2
done
exit $status
