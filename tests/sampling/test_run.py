"""Selections over processes, whatever the yield, the order and the kills: all end with the same output, complete.

Threads stand for processes: they share a folder and nothing else. What is drawn is a formula, so that hundreds of jobs
take seconds.
"""

import collections
import json
import pathlib
import random
import threading
import time
import types
from concurrent import futures

import numpy as np
import pytest

from skullgan_jax.model.draw import Samples
from skullgan_jax.model.select import Selection, Where
from skullgan_jax.sampling import job, rows, run
from skullgan_jax.sampling.store import FORMAT, Store
from skullgan_jax.slices import radiology

SHARD, UNIQUE = 2, 32


class Killed(BaseException):
    """The end of a process at that moment."""


class Formula:
    """Samples whose mean_hu is the first, and whose picture the second, of a pair of numbers for each index.

    Args:
      numbers: [(mean_hu, picture)]; pictures of other numbers differ in 64 pixels at least.
      ahead: how many ranges are read before the first is drawn.
      moment: is called at moments in which a process may be slow, or killed.
    """

    store, left_open = Store, ()

    def __init__(self, numbers, ahead, moment):
        self._numbers, self._ahead, self._moment = numbers, ahead, moment
        self.about = self.draws = {"format": FORMAT, "model": "formula"}
        self.formats = types.SimpleNamespace(
            about=lambda path: json.loads(pathlib.Path(path).read_text()) if pathlib.Path(path).exists() else None,
            undamaged=lambda path, there: True,
            write=self._write,
        )

    def _write(self, form, path, blocks, about):
        index = [int(i) for block in blocks for i in block.index]
        beside = pathlib.Path(f"{path}.{threading.get_ident()}")
        beside.write_text(json.dumps(about | {"complete": True, "index": index}))
        self._moment()
        beside.replace(path)

    def check_same(self, there, about, path):
        assert there["model"] == about["model"]

    def samples(self, first, last):
        hu = np.zeros((last - first, 128, 128), np.int16)
        measures = {name: np.zeros(last - first, np.float32) for name in radiology.NAMES}
        for i, (mean_hu, picture) in enumerate(self._numbers[first:last]):
            measures["mean_hu"][i] = mean_hu
            for bit in range(8):
                hu[i, 2 * bit, :64] = 2000 * (picture >> bit & 1)
        return Samples(np.arange(first, last), hu, measures)

    def drawn(self, store, ranges, progress):
        queue = collections.deque()
        while True:
            while len(queue) < self._ahead and (wanted := next(ranges, None)):
                queue.append(wanted)
            if not queue:
                return
            self._moment()
            first, last = queue.popleft()
            progress(last)
            yield self.samples(first, last)

    def kept(self, drawn):
        return drawn


class Processes:
    """Runs jobs as processes that are slow at random, and killed as often as is said."""

    def __init__(self, numbers, chance, kills):
        self._numbers, self._chance, self._left, self._lock = numbers, chance, kills, threading.Lock()

    def moment(self):
        with self._lock:
            killed = self._left > 0 and self._chance.random() < 0.1
            self._left -= killed
            wait = self._chance.choice([0, 0, 0.002])
        if killed:
            raise Killed
        time.sleep(wait)

    def run(self, jobs):
        """Each job in a thread, again after a kill."""

        def process(wanted):
            source = Formula(self._numbers, self._chance.choice([1, 2, 5]), self.moment)
            while True:
                try:
                    return run.run(source, wanted)
                except Killed:
                    continue

        with futures.ThreadPoolExecutor(len(jobs)) as pool:
            for done in [pool.submit(process, wanted) for wanted in jobs]:
                done.result(timeout=120)


@pytest.fixture
def dies_while_writing(monkeypatch):
    """Has a shard written up to the record that it is whole, or not at all, where a process is killed."""
    write = rows.Rows.write

    def of(processes):
        def and_die(self, shard, values):
            try:
                processes.moment()
                write(self, shard, values)
            except Killed:
                first, last = self.rows(shard)
                self._arrays["mean_hu"][first:last].write(values["mean_hu"]).result()
                raise

        monkeypatch.setattr(rows.Rows, "write", and_die)

    return of


def numbers(chance, most, kind):
    """Pairs for Formula: the yield is even, falls, rises, or comes all at the end."""
    share = chance.choice([0.2, 0.5, 1.0])
    likely = {
        "even": lambda i: share,
        "falls": lambda i: 1.0 if i < most // 3 else 0.1,
        "rises": lambda i: 0.0 if i < most // 2 else 1.0,
    }[kind]
    pictures = chance.choice([4, 200])
    return [(1.0 if chance.random() < likely(i) else 0.0, chance.randrange(pictures)) for i in range(most)]


def expected(found, where, unique, num):
    """The indices that are kept, one after the other; all that are, if fewer."""
    selection = Selection(where, unique)
    selection.add(Formula(found, 1, None).samples(0, len(found)))
    return selection.first(num).tolist()


def check_one(seed, folder, dies_while_writing, *, kills):
    chance = random.Random(seed)
    kind, most = chance.choice(["even", "falls", "rises"]), chance.choice([7, 24, 40])
    which = chance.choice(["where", "unique", "both"])
    where = Where("mean_hu>0.5") if which != "unique" else None
    unique = UNIQUE if which != "where" else None
    found = numbers(chance, most, kind)
    kept = expected(found, where, unique, most)
    if not kept:
        return
    num = chance.randint(1, len(kept))
    form = chance.choice(["zarr", "npy"])
    output = f"{folder}/{seed}.{form}"
    count = chance.choice([1, 2, 3, 3, 3])
    samples = job.Identity("formula", where=where, unique=unique)
    alive = range(count) if chance.random() < 0.5 else [chance.randrange(count)]  # the others never came
    # Another asked for more of the same, or for fewer.
    nums = [num, chance.randint(1, len(kept))] if chance.random() < 0.3 else [num]
    jobs = [
        job.Job(samples, n, output, form, max_draws=most, shard=SHARD, process=process, processes=count)
        for n in nums
        for process in alive
    ]
    processes = Processes(found, chance, kills)
    dies_while_writing(processes)
    processes.run(jobs)
    told = f"seed {seed}: {kind} {which} {form}, {nums} of {most}, {list(alive)} of {count}"
    if form == "zarr":
        store = Store(output)
        assert store.about["complete"], told
        assert len(store) == max(nums), told
        index = store.read(0, len(store)).index.tolist()
    else:
        index = json.loads(pathlib.Path(output).read_text())["index"]
        assert len(index) in nums, told
    assert index == kept[: len(index)], told


# Of two hundred those in which a process had all of its own in flight when it looked for what is missing.
@pytest.mark.parametrize("seed", [1003, 1015, 1018, 1041, 1084, 1098, 1120, 1146])
def test_all_end_with_the_same(seed, tmp_path, dies_while_writing):
    check_one(seed, tmp_path, dies_while_writing, kills=3)


@pytest.mark.parametrize("process", range(3))
@pytest.mark.parametrize("ahead", [1, 5])
@pytest.mark.parametrize("kept", [lambda i: i % 2, lambda i: i >= 20], ids=["even", "late"])
def test_one_that_is_alone_draws_little_more_than_it_needs(process, ahead, kept, tmp_path):
    """Of three, with room for hundreds of times as many: it never chases what it leaves out itself."""
    found = [(kept(i), 0) for i in range(4000)]
    samples = job.Identity("formula", where=Where("mean_hu>0.5"))
    asked = {"max_draws": 4000, "shard": SHARD, "process": process, "processes": 3}
    run.run(Formula(found, ahead, lambda: None), job.Job(samples, 20, f"{tmp_path}/s.npy", "npy", **asked))
    wanted = [i for i in range(4000) if kept(i)][:20]
    assert json.loads((tmp_path / "s.npy").read_text())["index"] == wanted  # the last is 39
    written = 2000 - len(Store(tmp_path / "s.npy.draws").uncommitted(0, 2000))
    assert 20 <= written <= 20 + 20 + 2 * ahead  # what is needed, and its own beyond


@pytest.mark.all
def test_all_end_with_the_same_many_times(tmp_path, dies_while_writing):
    for seed in range(1000, 1060):
        check_one(seed, tmp_path, dies_while_writing, kills=20)
