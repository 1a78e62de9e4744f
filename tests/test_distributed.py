"""What one of several processes fails at, all of them fail at, and they stay in step."""

import json
import time
from datetime import timedelta

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

from tff.distributed import OtherProcessError, broadcast, fail_together, guard_collectives

HANGS = timedelta(seconds=50)  # then a process that waits in vain fails


def batches(number, fails_at=None, seconds=0.05):
    """How many batches of a pass this process has seen."""
    with fail_together() as look:
        for batch in range(number):
            look()
            if batch == fails_at:
                raise ValueError("a batch is odd")
            time.sleep(seconds)
    return number


class Question:
    """One for each place where a process may fail, as seen by the process of that rank."""

    def __init__(self, rank):
        self.fails = rank == 1

    def nothing(self):
        batches(2)
        broadcast(1)

    def before_a_pass(self):
        if self.fails:
            raise MemoryError("before a pass")
        batches(2)

    def before_a_long_pass(self):
        self.before_a_pass() if self.fails else batches(200)

    def between_two(self):
        batches(2)
        self.before_a_pass()

    def within(self):
        batches(200, 3 if self.fails else None)

    def after_all(self):
        batches(2)
        if self.fails:
            raise KeyError("after all")

    def before_it_is_agreed(self):
        if self.fails:
            raise OSError("cannot look")
        broadcast(1)
        batches(2)

    def put_in_other_words(self):
        try:
            self.within()
        except ValueError as error:
            raise RuntimeError("in other words") from error

    def swallowed(self):
        try:
            self.within()
        except ValueError:
            batches(2)

    def the_other_one(self):
        self.fails = not self.fails
        self.before_a_pass()

    def all_of_them(self):
        batches(2)
        raise ArithmeticError("nobody can")


QUESTIONS = [name for name in vars(Question) if not name.startswith("_")]


def meet(folder, name, rank):
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/{name}", rank=rank, world_size=2, timeout=HANGS
    )


def seen_by_both(number):
    """Batches of both; also shows that they are still in step."""
    both = torch.tensor(number)
    distributed.all_reduce(both)
    return int(both)


def asker(rank, folder):
    torch.set_num_threads(1)
    meet(folder, "meet", rank)
    found = {}
    for name in QUESTIONS:
        began = time.monotonic()
        try:
            with guard_collectives():
                getattr(Question(rank), name)()
            answer = "fine"
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        found[name] = answer, time.monotonic() - began, seen_by_both(1)
    distributed.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps(found))


def sweeper(number, folder):
    """The first process does two jobs, each with another one that is new."""
    torch.set_num_threads(1)
    found = []
    for job in (1, 2):
        if number not in (0, job):
            continue
        rank = min(number, 1)
        meet(folder, f"job{job}", rank)
        # The first job meets more often than the second one has.
        for fails_at in [None] * 4 if job == 1 else [3, None, None, None, None]:
            began = time.monotonic()
            try:
                # The longer pass is left early.
                long = 100 if rank and fails_at else 12
                seen = batches(long, fails_at if rank == 0 else None, 0.1)
            except (ValueError, OtherProcessError):
                seen = -1
            found.append((job, seen_by_both(seen), time.monotonic() - began))
        distributed.destroy_process_group()
    (folder / f"{number}.json").write_text(json.dumps(found))


def run(worker, folder, processes):
    context = mp.spawn(worker, (folder,), processes, join=False)
    until = time.monotonic() + 3 * HANGS.seconds  # each of them imports torch first
    try:
        while not context.join(timeout=1):
            assert time.monotonic() < until, "hangs"
    finally:
        for process in context.processes:
            process.kill()
    return [json.loads((folder / f"{n}.json").read_text()) for n in range(processes)]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return run(asker, tmp_path_factory.mktemp("asked"), 2)


#: What the first process and the second one, which fails, get to know.
ANSWERS = {
    "nothing": ("fine", "fine"),
    "before_a_pass": ("process 1 of 2: before a pass", "MemoryError: before a pass"),
    "before_a_long_pass": ("process 1 of 2: before a pass", "MemoryError: before a pass"),
    "between_two": ("process 1 of 2: before a pass", "MemoryError: before a pass"),
    "within": ("process 1 of 2: a batch is odd", "ValueError: a batch is odd"),
    "after_all": ("process 1 of 2: 'after all'", "KeyError: 'after all'"),
    "before_it_is_agreed": ("process 1 of 2: cannot look", "OSError: cannot look"),
    "put_in_other_words": ("process 1 of 2: a batch is odd", "RuntimeError: in other words"),
    "swallowed": ("process 1 of 2: a batch is odd", "process 0 of 2: process 1 of 2: a batch"),
    "the_other_one": ("MemoryError: before a pass", "process 0 of 2: before a pass"),
    "all_of_them": ("ArithmeticError: nobody can",) * 2,
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_all_get_through_or_none(name, asked):
    for found, answer in zip(asked, ANSWERS[name], strict=True):
        told, seconds, processes = found[name]
        assert answer in told
        assert processes == 2
        assert seconds < 8  # of the 10 s of a pass of 200 batches


def test_alone_an_error_is_itself():
    with pytest.raises(KeyError, match="mine"), guard_collectives():
        raise KeyError("mine")


def test_a_process_that_lives_on_from_job_to_job_is_understood(tmp_path):
    """No batch is left out after an error, and the error itself is seen at once."""
    for found in run(sweeper, tmp_path, 3):
        for job, seen, seconds in found:
            assert seconds < 8  # of the 10 s of the pass that is left
            assert (job, seen) in {(1, 24), (2, 24), (2, -2)}
    assert [seen for job, seen, _ in found if job == 2] == [-2, 24, 24, 24, 24]
