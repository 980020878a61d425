"""What launch/ starts, and how it ends. On a real Slurm: tests/processes/test_slurm.py."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import tomllib

import pytest
import yaml

from skullgan_jax.machine import paths
from tests.conftest import ROOT

LAUNCH = ROOT / "launch"
SCRIPTS = ("local.sh", "sampling.sbatch", "slurm.sbatch", "tpu_vm.sh")
PATH = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"


def tool(name: str) -> str:
    found = shutil.which(name, path=PATH)
    assert found, f"no {name}; it comes with the test extra"
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_sound(name):
    subprocess.run(["bash", "-n", LAUNCH / name], check=True)
    if name.endswith(".sh"):
        assert os.access(LAUNCH / name, os.X_OK)
    checked = subprocess.run([tool("shellcheck"), LAUNCH / name], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", ["jobset.yaml", "sampling.yaml"])
def test_manifest_is_sound(name):
    rules = "{extends: default, rules: {line-length: {max: 120}}}"
    checked = subprocess.run([tool("yamllint"), "--strict", "-d", rules, LAUNCH / name], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


# launch/local.sh


def local(*arguments, env=(), **kwargs):
    """The launcher as a process; env without the CUDA_VISIBLE_DEVICES of this one."""
    environ = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS")}
    return subprocess.Popen(
        # What starts the tests, as nohup does, may ignore these signals; a shell that inherits that cannot trap them.
        ["env", "--default-signal=INT,HUP", LAUNCH / "local.sh", *map(str, arguments)],
        env=environ | {"JAX_PLATFORMS": "cpu"} | dict(env),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **kwargs,
    )


def said(process) -> list[str]:
    """Its sorted lines."""
    return sorted(process.communicate(timeout=30)[0].splitlines())


def test_local_places_processes():
    show = 'echo $JAX_PROCESS_ID $JAX_NUM_PROCESSES $JAX_COORDINATOR_ADDRESS "$1" ${CUDA_VISIBLE_DEVICES-none}'
    process = local(3, "bash", "-c", show, "bash", "a  b")
    lines = said(process)
    assert process.returncode == 0
    address = lines[0].split()[2]
    assert lines == [f"{i} 3 {address} a  b none" for i in range(3)]
    host, port = address.split(":")
    assert host == "127.0.0.1"
    assert 20000 <= int(port) < 32768  # where Linux takes no ports for outgoing connections from


def test_local_divides_gpus():
    show = "echo $JAX_PROCESS_ID $CUDA_VISIBLE_DEVICES"
    gpus = {"CUDA_VISIBLE_DEVICES": "7,3,GPU-5,1", "JAX_PLATFORMS": ""}
    assert said(local(2, "bash", "-c", show, env=gpus)) == ["0 7,3", "1 GPU-5,1"]
    assert said(local(4, "bash", "-c", show, env=gpus)) == ["0 7", "1 3", "2 GPU-5", "3 1"]
    refused = local(3, "true", env=gpus)
    assert "4 GPUs do not divide over 3 processes" in refused.communicate()[1]
    assert refused.returncode == 2


@pytest.mark.parametrize("arguments", [[], ["2"], ["0", "true"], ["two", "true"]])
def test_local_says_how_it_is_used(arguments):
    process = local(*arguments)
    assert "usage: launch/local.sh N COMMAND" in process.communicate(timeout=10)[1]
    assert process.returncode == 2


def test_local_exits_as_the_first_that_failed():
    """The others end by themselves later, with another status."""
    script = "[ $JAX_PROCESS_ID = 1 ] && exit 7; sleep 1; exit 3"
    process = local(3, "bash", "-c", script)
    process.communicate(timeout=30)
    assert process.returncode == 7


def test_local_kills_what_does_not_end(tmp_path):
    script = f"[ $JAX_PROCESS_ID = 1 ] && exit 7; echo $$ >{tmp_path}/pid; exec sleep 60"
    began = time.monotonic()
    process = local(2, "bash", "-c", script, env={"GRACE": "1"})
    process.communicate(timeout=30)
    assert process.returncode == 7
    assert time.monotonic() - began < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_local_hands_signals_on(number, tmp_path):
    mark = f"{tmp_path}/$JAX_PROCESS_ID"
    script = f"sleep 60 & trap 'kill $!; sleep 1; touch {mark}.saved; exit' TERM; touch {mark}.up; wait"
    process = local(2, "bash", "-c", script)
    while len(list(tmp_path.glob("*.up"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert len(list(tmp_path.glob("*.saved"))) == 2


# launch/jobset.yaml


@pytest.fixture(scope="module")
def manifests():
    """The documents of the file, two variants, by their label."""
    documents = list(yaml.safe_load_all((LAUNCH / "jobset.yaml").read_text()))
    return {d["metadata"]["labels"]["device"]: d for d in documents}


def _pod(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated, replicated["template"]["spec"], replicated["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize(("device", "resource", "hosts"), [("gpu", "nvidia.com/gpu", 2), ("tpu", "google.com/tpu", 4)])
def test_jobset_places_processes(manifests, device, resource, hosts):
    jobset = manifests[device]
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    replicated, job, pod = _pod(jobset)
    assert (job["completionMode"], job["parallelism"], job["completions"]) == ("Indexed", hosts, hosts)
    (container,) = pod["containers"]
    environ = {e["name"]: e for e in container["env"]}
    # JobSet's names: <jobset>-<replicated job>-<job>-<pod>, in a headless service that has the JobSet's name.
    name = jobset["metadata"]["name"]
    host, port = environ["JAX_COORDINATOR_ADDRESS"]["value"].split(":")
    assert host == f"{name}-{replicated['name']}-0-0.{name}"
    assert port.isdecimal()
    assert environ["JAX_NUM_PROCESSES"]["value"] == str(hosts)
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert environ["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"] == index
    assert container["resources"]["limits"][resource] >= 4
    # Nothing for all of them but a bucket, to which an account has the rights.
    assert not [v for v in pod.get("volumes", ()) if "emptyDir" not in v]
    flags = dict(word.removeprefix("--").split("=") for word in container["args"] if "=" in word)
    assert all(paths.is_remote(flags[name]) for name in ("workdir", "config.data.path"))
    assert paths.is_remote(environ["JAX_COMPILATION_CACHE_DIR"]["value"])
    assert pod["serviceAccountName"]
    assert "--distributed" in container["args"]


@pytest.mark.parametrize("device", ["gpu", "tpu"])
def test_jobset_starts_again_what_can_go_on(manifests, device):
    jobset = manifests[device]
    _, job, pod = _pod(jobset)
    assert pod["restartPolicy"] == "Never"  # a podFailurePolicy needs it
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert job["backoffLimit"] == 0  # one lost pod is all of them lost
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    (rule,) = job["podFailurePolicy"]["rules"]
    container = pod["containers"][0]["name"]
    assert rule == {
        "action": "FailJob",
        "onExitCodes": {"containerName": container, "operator": "In", "values": [1, 2]},
    }
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


def test_jobset_variants_differ_in_the_hardware_alone(manifests):
    def rest(device):
        jobset = yaml.safe_load(yaml.safe_dump(manifests[device]))
        _, job, pod = _pod(jobset)
        (container,) = pod["containers"]
        for of, names in (
            (jobset["metadata"], ("labels", "annotations")),
            (job, ("parallelism", "completions")),
            (pod, ("nodeSelector", "volumes")),
            (container, ("image", "resources", "volumeMounts")),
        ):
            for name in names:
                of.pop(name, None)
        container["env"] = [e for e in container["env"] if e["name"] != "JAX_NUM_PROCESSES"]
        return jobset

    assert rest("gpu") == rest("tpu")


@pytest.fixture(scope="module")
def in_pod(manifests):
    """A function of arguments: the container's command with them, as a process."""
    _, _, pod = _pod(manifests["gpu"])
    command = pod["containers"][0]["command"]
    return lambda *arguments: subprocess.Popen([*command, *arguments], text=True, stdout=subprocess.PIPE)


@pytest.mark.parametrize("status", [0, 1, 2, 75])
def test_a_pod_ends_as_its_process(in_pod, status):
    process = in_pod("bash", "-c", 'echo "$1"; exit $0', str(status), "a  b")
    assert process.communicate(timeout=10)[0] == "a  b\n"
    assert process.returncode == status


def test_an_evicted_pod_saves_and_counts_as_failed(in_pod):
    process = in_pod("bash", "-c", "sleep 60 & trap 'kill $!; sleep 1; echo saved; exit 0' TERM; echo up; wait")
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "saved\n"
    assert process.returncode == 143


def test_a_pod_has_a_sound_script(manifests):
    for device in ("gpu", "tpu"):
        _, _, pod = _pod(manifests[device])
        shell, flag, script, _ = pod["containers"][0]["command"]
        assert (shell, flag) == ("bash", "-c")
        checked = subprocess.run(
            [tool("shellcheck"), "--shell=bash", "-"], input=script, capture_output=True, text=True
        )
        assert checked.returncode == 0, checked.stdout


# launch/sampling.yaml


def test_pods_that_sample_share_no_fate():
    """Each knows its place, waits for none, and is started again alone."""
    jobset = yaml.safe_load((LAUNCH / "sampling.yaml").read_text())
    _, job, pod = _pod(jobset)
    (container,) = pod["containers"]
    environ = {e["name"]: e for e in container["env"]}
    assert environ.keys() == {"JAX_COMPILATION_CACHE_DIR", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"}
    assert environ["JAX_NUM_PROCESSES"]["value"] == str(job["completions"]) == str(job["parallelism"])
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert environ["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"] == index
    assert (job["completionMode"], pod["restartPolicy"]) == ("Indexed", "Never")
    assert job["backoffLimitPerIndex"] > 0
    assert "backoffLimit" not in job
    bad, evicted = job["podFailurePolicy"]["rules"]
    assert (bad["action"], bad["onExitCodes"]["values"]) == ("FailJob", [1, 2])
    assert evicted == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    flags = dict(word.split("=", 1) for word in container["command"] if word.startswith("--"))
    assert flags.keys() == {"--model", "--num", "--output"}
    assert "volumes" not in pod


# launch/slurm.sbatch and launch/sampling.sbatch, with a Slurm that writes down what it is asked for


@pytest.fixture
def in_slurm(tmp_path):
    """A function of a script, a command and variables: its exit status and how scontrol was called."""
    for name, text in {
        "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"\n',
        "scontrol": f'[[ $* == *show* ]] || echo "$*" >>{tmp_path}/calls\n',
    }.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (tmp_path / name).chmod(0o755)

    def run(script, *command, **variables):
        environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"} | variables
        status = subprocess.run(["bash", LAUNCH / script, *command], env=environ, timeout=60).returncode
        calls = tmp_path / "calls"
        return status, calls.read_text().splitlines() if calls.exists() else []

    return run


ARRAY = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1"} | {
    "SLURM_ARRAY_TASK_COUNT": "4"
}


@pytest.mark.parametrize(("script", "queued"), [("slurm.sbatch", "requeue 7"), ("sampling.sbatch", "requeue 5_3")])
@pytest.mark.parametrize(
    ("ends", "expected", "restarts", "again"),
    [
        ("exit 0", 0, "0", False),
        ("exit 1", 1, "0", False),
        ("exit 2", 2, "0", False),
        ("exit 75", 75, "0", True),
        ("exit 75", 75, "50", False),
        ("kill -9 $$", 137, "0", True),
        ("kill -TERM $$", 143, "0", True),  # as Slurm ends those that are left where one was killed
        ("kill -TERM $PPID; sleep 0.2; exit 143", 143, "0", False),  # it ends all of the job
    ],
)
def test_slurm_queues_again_what_can_go_on(in_slurm, script, queued, ends, expected, restarts, again):
    status, calls = in_slurm(script, "bash", "-c", ends, SLURM_RESTART_COUNT=restarts, **ARRAY)
    assert status == expected
    assert calls == ([queued] if again else [])


def test_an_element_of_an_array_knows_its_place(in_slurm, tmp_path):
    show = f"echo $JAX_PROCESS_ID $JAX_NUM_PROCESSES >{tmp_path}/place"
    assert in_slurm("sampling.sbatch", "bash", "-c", show, **ARRAY) == (0, [])
    assert (tmp_path / "place").read_text() == "2 4\n"


# launch/Dockerfile: read, as no container runtime is asked for


def _instructions() -> list[tuple[str, str]]:
    text = (LAUNCH / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines()]


def test_an_image_holds_what_its_build_takes(tmp_path):
    """As pyproject.toml names it, for each of the two devices."""
    found = _instructions()
    names = [name for name, _ in found]
    assert set(names) <= {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "CMD"}
    assert names[0] == "FROM"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {"cuda", "tpu"} <= project["project"]["optional-dependencies"].keys()
    assert ("ARG", "DEVICE=cuda") in found
    copied = {word for name, words in found if name == "COPY" for word in words.split()[:-1]}
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", "README.md", "LICENSE", "requirements.lock", *wheel["packages"]}
    assert copied == needed | {name.partition("/")[0] for name in wheel["force-include"]}
    ignored = (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    for name in copied:
        assert (ROOT / name).exists(), name
    (script,) = (words for name, words in found if name == "RUN")
    assert '-c requirements.lock ".[$DEVICE]"' in script
    checked = subprocess.run([tool("shellcheck"), "--shell=sh", "--exclude=SC2154", "-"], input=script, text=True)
    assert checked.returncode == 0
    assert json.loads(found[-1][1]) == ["skullgan", "--help"]


# launch/tpu_vm.sh, with a gcloud that writes down how it is called and runs on this machine what should run on a worker

_GCLOUD = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$CALLS/gcloud"
case "$*" in
  *describe*) head -n1 "$CALLS/states"; sed -i 1d "$CALLS/states" ;;
  *scp*skullgan.tar.gz*) for a in "$@"; do [[ $a == *.tar.gz ]] && cp "$a" "$HOME"; done ;;
esac
for a in "$@"; do
  [[ $a == --command=* && ${WORKER:-} ]] && { cd "$HOME" && bash -c "${a#--command=}"; exit; }
done
exit 0
"""
_CURL = """#!/usr/bin/env bash
case "$*" in
  *agent-worker-number) echo "$WORKER" ;;
  *worker-network-endpoints) echo "$ENDPOINTS" ;;
  *) echo key ;;
esac
"""
_SUDO = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$CALLS/sudo"
[[ $1 == systemd-run ]] && printf '%s\\n' "$@" >"$CALLS/unit"
exit 0
"""
_NOTED = """#!/usr/bin/env bash
printf '%s\\n' "${0##*/} $*" >>"$CALLS/sudo"
"""


@pytest.fixture
def tpu_vm(tmp_path):
    """A function of arguments and variables: (exit status, what it said on stderr); calls are in tmp_path."""
    folder, home = tmp_path / "bin", tmp_path / "home"
    (home / ".local" / "bin").mkdir(parents=True)
    folder.mkdir()
    programs = {folder / "gcloud": _GCLOUD, folder / "curl": _CURL, folder / "sudo": _SUDO}
    programs |= {folder / name: _NOTED for name in ("gcsfuse", "python3", "lsb_release")}
    programs |= {home / ".local" / "bin" / "uv": _NOTED}
    programs |= {folder / "mountpoint": '#!/bin/sh\n[ "$MOUNTED" ]\n'}
    for path, text in programs.items():
        path.write_text(text)
        path.chmod(0o755)

    def run(*arguments, **variables):
        environ = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(home), "CALLS": str(tmp_path)}
        done = subprocess.run(
            [LAUNCH / "tpu_vm.sh", *arguments],
            env=environ | variables,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stderr

    return run


def test_tpu_is_asked_for_and_waited_for(tpu_vm, tmp_path):
    states = tmp_path / "states"
    states.write_text("WAITING_FOR_RESOURCES\nPROVISIONING\nACTIVE\n")
    assert tpu_vm("create", NAME="mine", ZONE="z", TYPE="v5litepod-8", RUNTIME="r", POLL="0") == (0, "")
    created, *described = (tmp_path / "gcloud").read_text().splitlines()
    assert created == (
        "compute tpus queued-resources create mine --zone=z --node-id=mine --accelerator-type=v5litepod-8 "
        "--runtime-version=r --spot"
    )
    assert described == ["compute tpus queued-resources describe mine --zone=z --format=value(state.state)"] * 3
    states.write_text("SUSPENDED\n")
    code, error = tpu_vm("create", TERMS="", POLL="0")
    assert code == 2
    assert "SUSPENDED" in error
    assert "--spot" not in (tmp_path / "gcloud").read_text().splitlines()[-2]


def test_tpu_workers_get_this_checkout(tpu_vm, tmp_path):
    code, error = tpu_vm("install", NAME="mine", ZONE="z", WORKER="0", SHARE="10.1.2.3:/vol")
    assert code == 0, error
    copied = (tmp_path / "gcloud").read_text().splitlines()[0]
    assert copied.startswith("compute tpus tpu-vm scp --recurse --zone=z --worker=all ")
    assert copied.endswith("/skullgan.tar.gz mine:")
    there = tmp_path / "home" / "skullgan"
    for name in ("pyproject.toml", "requirements.lock", "skullgan_jax/main.py", "configs/skull.py"):
        assert (there / name).read_bytes() == (ROOT / name).read_bytes()
    assert not (there / ".git").exists()
    assert not (there / ".venv").exists()


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ("10.1.2.3:/vol", "mount -t nfs 10.1.2.3:/vol /mnt/skullgan"),
        ("gs://bucket", "gcsfuse --metadata-cache-ttl-secs=0 bucket /mnt/skullgan"),
    ],
)
def test_tpu_workers_mount_one_folder(tpu_vm, tmp_path, share, expected):
    code, error = tpu_vm("install", WORKER="0", SHARE=share)
    assert code == 0, error
    done = (tmp_path / "sudo").read_text().splitlines()
    assert expected in done
    assert any(line.startswith("uv venv") and "3.12" in line for line in done)
    assert any(line.startswith("uv pip install") and line.endswith("-c requirements.lock -e .[tpu]") for line in done)
    (tmp_path / "sudo").unlink()
    assert tpu_vm("install", WORKER="0", SHARE=share, MOUNTED="1")[0] == 0
    assert expected not in (tmp_path / "sudo").read_text().splitlines()


@pytest.mark.parametrize(
    "endpoints", ["a.internal,b.internal,c.internal", "n:1:a.internal,n:2:b.internal,n:3:c.internal"]
)
def test_tpu_workers_know_their_place(tpu_vm, tmp_path, endpoints):
    command = ["python", "-m", "skullgan_jax.main", "--workdir=/mnt/skullgan/a b", "--config.x=$HOME"]
    code, error = tpu_vm("run", *command, NAME="mine", ZONE="z", WORKER="2", ENDPOINTS=endpoints, MOUNTED="1")
    assert code == 0, error
    assert "--worker=all" in (tmp_path / "gcloud").read_text()
    unit = (tmp_path / "unit").read_text().splitlines()
    assert unit[-len(command) :] == command
    assert "--unit=skullgan" in unit
    variables = dict(word.removeprefix("--setenv=").split("=", 1) for word in unit if word.startswith("--setenv="))
    assert variables["JAX_COORDINATOR_ADDRESS"] == "a.internal:8482"
    assert variables["JAX_PROCESS_ID"] == "2"
    assert variables["JAX_NUM_PROCESSES"] == "3"
    assert variables["PATH"].startswith(f"{tmp_path}/home/skullgan/.venv/bin:")


def test_tpu_workers_start_again_what_can_go_on(tpu_vm, tmp_path):
    """Killed, or with 75; not with 0 or 2, nor when it is stopped."""
    assert tpu_vm("run", "true", WORKER="0", ENDPOINTS="a", MOUNTED="1")[0] == 0
    unit = (tmp_path / "unit").read_text().splitlines()
    given = dict(word.removeprefix("--property=").split("=", 1) for word in unit if word.startswith("--property="))
    assert (given["Restart"], given["RestartForceExitStatus"]) == ("on-abnormal", "75")
    assert (given["StartLimitIntervalSec"], given["StartLimitBurst"]) == ("1d", "50")


def test_tpu_run_needs_the_shared_folder(tpu_vm, tmp_path):
    code, error = tpu_vm("run", "true", WORKER="0", ENDPOINTS="a")
    assert code == 2
    assert "no shared folder at /mnt/skullgan; run install" in error
    assert not (tmp_path / "unit").exists()


def test_tpu_workers_that_share_a_bucket_need_no_folder(tpu_vm, tmp_path):
    assert tpu_vm("install", WORKER="0", SHARE="")[0] == 0
    assert "mnt" not in (tmp_path / "sudo").read_text()
    assert tpu_vm("run", "true", WORKER="0", ENDPOINTS="a", SHARE="")[0] == 0
    assert (tmp_path / "unit").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["logs"],
            "ssh mine --zone=z --worker=0 --command=journalctl --unit=skullgan --output=cat --follow --lines=100",
        ),
        (["stop"], "ssh mine --zone=z --worker=all --command=sudo systemctl stop skullgan"),
        (["fetch", "/mnt/skullgan/run", "runs"], "scp --recurse --zone=z --worker=0 mine:/mnt/skullgan/run runs"),
        (["delete"], "delete mine --zone=z --force --quiet"),
    ],
)
def test_tpu_commands(tpu_vm, tmp_path, arguments, expected):
    assert tpu_vm(*arguments, NAME="mine", ZONE="z") == (0, "")
    assert (tmp_path / "gcloud").read_text().strip().endswith(expected)


def test_tpu_says_how_it_is_used(tpu_vm):
    for arguments in ([], ["start"]):
        code, error = tpu_vm(*arguments)
        assert code == 2
        assert "usage: launch/tpu_vm.sh create" in error
