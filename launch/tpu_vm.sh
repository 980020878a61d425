#!/usr/bin/env bash
# Cloud TPU virtual machines, one process on each worker, from this checkout:
#
#   launch/tpu_vm.sh create                       # waits in the queue until the machines are there
#   launch/tpu_vm.sh install                      # this checkout, its dependencies and the shared folder on all workers
#   launch/tpu_vm.sh run python -m skullgan_jax.main --distributed --config=configs/skull.py --workdir=/mnt/skullgan/run
#   launch/tpu_vm.sh logs                         # of worker 0; Ctrl-C leaves the log, not the run
#   launch/tpu_vm.sh stop                         # all processes save once and end; `run` goes on
#   launch/tpu_vm.sh fetch /mnt/skullgan/run runs/
#   launch/tpu_vm.sh run python -m skullgan_jax.sample --model=/mnt/skullgan/run --num=1000000 --output=gs://BUCKET/s.zarr
#   launch/tpu_vm.sh delete                       # the machines, not the shared folder
#
# A run that fails as the machine or the network did (exit 75), or is killed, is started again by its worker, 50 times at
# most; bad input (2) is not. A preempted spot machine is gone: delete, create, install, run.
# Edit, or set in the environment:
NAME=${NAME:-skullgan}
ZONE=${ZONE:-us-west4-a}
TYPE=${TYPE:-v5litepod-16}                       # 16 chips, 4 workers
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}          # v6e: v2-alpha-tpuv6e; v5p: v2-alpha-tpuv5; v4: tpu-ubuntu2204-base
TERMS=${TERMS---spot}                            # empty: on demand
# What all workers mount at /mnt/skullgan: an NFS export, as of Filestore in the same network, or a bucket with a
# hierarchical namespace, in which a folder is renamed at once (gcloud storage buckets create gs://BUCKET
# --enable-hierarchical-namespace --uniform-bucket-level-access --location=REGION).
SHARE=${SHARE-10.0.0.2:/share}                   # or gs://BUCKET, or empty: no folder, everything lies in buckets
set -euo pipefail

fail() { echo "launch/tpu_vm.sh: $1" >&2; exit 2; }
queue() { gcloud compute tpus queued-resources "$1" "$NAME" --zone="$ZONE" "${@:2}"; }
on() { gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker="$1" --command="$2"; }
copy() { gcloud compute tpus tpu-vm scp --recurse --zone="$ZONE" --worker="$1" "${@:2}"; }

create() {
  # shellcheck disable=SC2086  # no word, or several
  queue create --node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$RUNTIME" $TERMS
  local state=
  until [[ $state == ACTIVE ]]; do
    [[ $state == FAILED || $state == SUSPEND* ]] && fail "the request is $state; delete it and create it again"
    sleep "${POLL:-30}"
    state=$(queue describe --format='value(state.state)')
    echo "$(date +%T) $state"
  done
}

install() {
  local packed
  packed=$(mktemp -d)
  (cd "$(dirname "$0")/.." && git ls-files -z | tar -czf "$packed/skullgan.tar.gz" --null -T -)
  copy all "$packed/skullgan.tar.gz" "$NAME:"
  rm -r "$packed"
  # The images' own Python is older than 3.11.
  on all "set -e
    mkdir -p skullgan
    tar -xzf skullgan.tar.gz -C skullgan
    python3 -m pip install --quiet --user uv
    cd skullgan
    ~/.local/bin/uv venv --quiet --allow-existing --python 3.12 .venv
    ~/.local/bin/uv pip install --quiet --python .venv/bin/python -c requirements.lock -e '.[tpu]'
    $(mounted)"
}

mounted() {  # the commands that mount the shared folder
  [[ $SHARE ]] || return 0
  local apt='sudo apt-get -qq -o DPkg::Lock::Timeout=300'
  echo 'mountpoint -q /mnt/skullgan && exit
    sudo mkdir -p /mnt/skullgan'
  if [[ $SHARE == gs://* ]]; then
    # Without a cache of its own, each worker sees at once what another has written.
    echo "sudo chown \$(id -u) /mnt/skullgan
    curl -sf https://packages.cloud.google.com/apt/doc/apt-key.gpg |
      sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
    echo deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt \\
      gcsfuse-\$(lsb_release -cs) main | sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    $apt update && $apt install -y gcsfuse
    gcsfuse --metadata-cache-ttl-secs=0 ${SHARE#gs://} /mnt/skullgan"
  else
    echo "$apt update && $apt install -y nfs-common
    sudo mount -t nfs $SHARE /mnt/skullgan
    sudo chmod a+rwx /mnt/skullgan"
  fi
}

run() {
  (($#)) || fail "run needs a command"
  local folder=${SHARE:+mountpoint -q /mnt/skullgan}
  # As a unit of systemd it outlives the connection, logs to the journal, and gets SIGTERM when the machine is stopped.
  on all "set -e
    about() {
      curl -sf -H Metadata-Flavor:Google http://metadata.google.internal/computeMetadata/v1/instance/attributes/\$1
    }
    id=\$(about agent-worker-number)
    workers=\$(about worker-network-endpoints)  # HOST,... or NAME:ID:HOST,...
    first=\${workers%%,*}
    commas=\${workers//[^,]/}
    ${folder:-true} || { echo 'no shared folder at /mnt/skullgan; run install' >&2; exit 2; }
    sudo systemctl reset-failed skullgan 2>/dev/null || true
    sudo systemd-run --quiet --unit=skullgan --uid=\$(id -u) --working-directory=\$HOME/skullgan \\
      --property=TimeoutStopSec=180 --property=Restart=on-abnormal --property=RestartForceExitStatus=75 \\
      --property=RestartSec=10 --property=StartLimitIntervalSec=1d --property=StartLimitBurst=50 \\
      --setenv=HOME=\$HOME --setenv=PATH=\$HOME/skullgan/.venv/bin:\$PATH \\
      --setenv=JAX_COORDINATOR_ADDRESS=\${first##*:}:8482 --setenv=JAX_PROCESS_ID=\$id \\
      --setenv=JAX_NUM_PROCESSES=\$((\${#commas} + 1)) $(printf '%q ' "$@")"
}

case ${1:-} in
  create | install | run) "$@" ;;
  logs) on 0 'journalctl --unit=skullgan --output=cat --follow --lines=100' ;;
  stop) on all 'sudo systemctl stop skullgan' ;;
  fetch) copy 0 "$NAME:${2:?a folder there}" "${3:?a folder here}" ;;
  delete) queue delete --force --quiet ;;
  *) fail "usage: launch/tpu_vm.sh create | install | run COMMAND ... | logs | stop | fetch THERE HERE | delete" ;;
esac
