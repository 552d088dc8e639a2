"""What is known of a run, by a clock that stands until it is moved."""

import pytest

from snakemake_logger_plugin_study.jobs import Jobs

PLANNED = {"clean_pass": 4, "ablate_zero": 1, "ablate_mean": 2, "decompose": 1, "draw_E1": 1}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(clock) -> Jobs:
    return Jobs(PLANNED | {"all": 1, "clean@gpt2": 1}, clock=clock)


def shard(number: int, shards: int, model: str = "gpt2") -> dict[str, str]:
    return {"model": model, "shard": str(number), "shards": str(shards)}


def test_jobs_that_run_nothing_do_not_count(jobs):
    assert jobs.total == 9
    assert jobs.start(1, "all", {}, "") is None
    assert jobs.end(1) is None


def test_titles_are_made_of_the_rule_and_its_wildcards(jobs):
    title = jobs.start(1, "clean_pass", shard(1, 4), "").title
    assert title == "clean pass 2/4 of gpt2"
    jobs.planned["gather_sweep"] = 1
    assert (
        jobs.start(2, "gather_sweep", {"model": "m", "ablation": "zero"}, "").title
        == "gather sweep zero of m"
    )
    assert jobs.start(3, "draw_E1", {}, "").title == "draw E1"


def test_a_report_is_that_of_the_job_which_shares_model_shard_and_a_word(jobs):
    jobs.start(1, "ablate_zero", shard(0, 2), "")
    jobs.start(2, "ablate_mean", shard(0, 2), "")
    jobs.start(3, "ablate_mean", shard(1, 2), "")
    jobs.start(4, "ablate_mean", shard(0, 2, "other"), "")
    jobs.start(5, "draw_E1", {}, "")
    told = jobs.report("gpt2 mean 1/2:  16 % after 00:19, 01:41 left\n")
    assert told is jobs.running[2]
    assert (told.percent, told.left) == (16, "01:41")
    assert [job.percent for job in jobs.running.values()] == [0, 16, 0, 0, 0]


@pytest.mark.parametrize(
    "line",
    [
        "warning: gpt2: something",
        "gpt2 mean 2/2:  16 % after 00:19, 01:41 left",
        "gpt2 neurons 1/2:  16 % after 00:19, 01:41 left",
        "",
    ],
)
def test_other_lines_are_no_report(jobs, line):
    jobs.start(2, "ablate_mean", shard(0, 2), "")
    assert jobs.report(line) is None


def test_nothing_is_known_of_the_time_left_before_a_job_says_something(jobs, clock):
    jobs.start(1, "clean_pass", shard(0, 4), "")
    clock.now += 30
    assert jobs.seconds_left() == (None, True)


def test_the_time_left_follows_from_what_jobs_took_or_report(jobs, clock):
    jobs.start(1, "clean_pass", shard(0, 4), "")
    jobs.start(2, "clean_pass", shard(1, 4), "")
    clock.now += 20
    jobs.report("gpt2 clean pass 1/4:  50 % after 00:20, 00:20 left")
    # 20 s of this job and, two at a time, of the other, and 40 s for two more; ablations come on top.
    left, unknown = jobs.seconds_left()
    assert left == pytest.approx(20 + 40)
    assert unknown
    clock.now += 20
    for number in (1, 2):
        jobs.end(number)
    jobs.start(3, "ablate_zero", shard(0, 1), "")
    clock.now += 10
    jobs.end(3)
    jobs.start(4, "decompose", {"model": "gpt2"}, "")
    clock.now += 2
    jobs.end(4)
    # Two ablations of another kind as long as the one, the figure as long as the table: 80 + 20 + 2 s,
    # and 92 s of jobs were done in 52 s.
    left, unknown = jobs.seconds_left()
    assert not unknown
    assert left == pytest.approx(102 * 52 / 92)


def test_a_failed_job_is_neither_running_nor_done(jobs):
    jobs.start(1, "clean_pass", shard(0, 4), "a.log")
    assert jobs.end(1, failed=True).log == "a.log"
    assert (jobs.done, jobs.running) == (0, {})
    assert jobs.seconds_left() == (None, True)
