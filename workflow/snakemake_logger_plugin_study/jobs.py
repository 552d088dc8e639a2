"""The jobs of a run as far as they are known: done, running, and how long the rest will take."""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

# A line of workflow/scripts/common/progress.py.
REPORT = re.compile(
    r"(?P<model>\S+) (?P<name>.+) (?P<shard>\d+)/(?P<shards>\d+):"
    r" +(?P<percent>\d+) % after \S+, (?P<left>\S+) left"
)
# Rules of targets: their jobs run nothing. Those of phases have an @ in their name.
TARGETS = {"all", "documents", "claims"}
# How the names of rules begin that run the model, minutes or hours; of the others none takes long.
MEASUREMENTS = ("clean", "ablate", "measure")
# Below this the speed of a job says little.
ENOUGH_PERCENT = 3


@dataclass
class Job:
    """A running job; started: by the clock of `Jobs`; percent, left: as the job last reported (0, "?": it
    has not)."""

    rule: str
    wildcards: Mapping[str, str]
    log: str
    started: float
    percent: int = 0
    left: str = "?"

    @property
    def measures(self) -> bool:
        """Whether it runs the model on some prompts of the sample, which takes a while."""
        return "shard" in self.wildcards

    @property
    def title(self) -> str:
        """What it does, such as "ablate zero 1/2 of gpt2"."""
        own = {"model", "shard", "shards"}
        words = [
            *self.rule.split("_"),
            *(self.wildcards[n] for n in self.wildcards if n not in own),
        ]
        if self.measures:
            words.append(f"{int(self.wildcards['shard']) + 1}/{self.wildcards['shards']}")
        if "model" in self.wildcards:
            words += ["of", self.wildcards["model"]]
        return " ".join(words)


@dataclass
class Jobs:
    """All jobs of a run.

    planned: how many of each rule, before the run; took: seconds of each finished job, by rule.
    """

    planned: Mapping[str, int]
    clock: Callable[[], float] = time.monotonic
    running: dict[int, Job] = field(default_factory=dict)
    took: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.planned = {
            rule: n for rule, n in self.planned.items() if rule not in TARGETS and "@" not in rule
        }
        self.began = self.clock()

    @property
    def total(self) -> int:
        return sum(self.planned.values())

    @property
    def done(self) -> int:
        return sum(map(len, list(self.took.values())))

    def start(self, number: int, rule: str, wildcards: Mapping[str, str], log: str) -> Job | None:
        """A job has started; None if it runs nothing."""
        if rule not in self.planned:
            return None
        job = self.running[number] = Job(rule, wildcards, log, self.clock())
        return job

    def end(self, number: int, *, failed: bool = False) -> Job | None:
        """A job has ended; None if it is not known to have started."""
        job = self.running.pop(number, None)
        if job and not failed:
            self.took[job.rule].append(self.seconds_of(job))
        return job

    def report(self, line: str) -> Job | None:
        """The running job whose progress a line on standard error reports; None if it is no such line."""
        told = REPORT.fullmatch(line.strip())
        if not told:
            return None
        # The name is the job's own word for what it measures, and shares one with the name of its rule.
        words = set(re.split(r"[\W_]+", told["name"]))
        shard = (told["model"], int(told["shard"]) - 1, int(told["shards"]))
        found = [
            (len(words & {*job.rule.split("_")}), -job.rule.count("_"), number)
            for number, job in self.running.items()
            if job.measures
            and shard
            == (job.wildcards["model"], *(int(job.wildcards[n]) for n in ("shard", "shards")))
        ]
        if not found or not max(found)[0]:
            return None
        job = self.running[max(found)[-1]]
        job.percent, job.left = int(told["percent"]), told["left"]
        return job

    def seconds(self) -> float:
        """Seconds since the run began."""
        return self.clock() - self.began

    def seconds_of(self, job: Job) -> float:
        """Seconds since a job started."""
        return self.clock() - job.started

    def seconds_left(self) -> tuple[float | None, bool]:
        """Seconds until the run is finished, by what its jobs took so far (None: nothing is known), and
        whether measurements of unknown length come on top.

        Jobs are taken to run side by side to the end as they did so far.
        """
        running = list(self.running.values())
        lengths = self._lengths(running)
        busy = sum(map(sum, list(self.took.values()))) + sum(map(self.seconds_of, running))
        if not lengths or not busy:
            return None, True
        rest, unknown = 0.0, False
        for rule, count in self.planned.items():
            own = [job for job in running if job.rule == rule]
            waiting = count - len(own) - len(self.took.get(rule, ()))
            if waiting or own:
                usual = usual_length(rule, lengths)
                unknown |= usual is None
                rest += waiting * (usual or 0.0) + sum(self._left_of(job, usual) for job in own)
        return rest * self.seconds() / busy, unknown

    def _lengths(self, running: list[Job]) -> dict[str, list[float]]:
        """Seconds that jobs took, or will by the share that they report, by rule."""
        lengths = {rule: list(took) for rule, took in list(self.took.items())}
        for job in running:
            if tells_enough(job):
                lengths.setdefault(job.rule, []).append(self.seconds_of(job) * 100 / job.percent)
        return lengths

    def _left_of(self, job: Job, usual: float | None) -> float:
        passed = self.seconds_of(job)
        if tells_enough(job):
            return passed * (100 / job.percent - 1)
        return max(0.0, (usual or 0.0) - passed)


def tells_enough(job: Job) -> bool:
    """Whether a job is so far on that its speed says when it will be done."""
    return job.percent >= ENOUGH_PERCENT


def first_word(rule: str) -> str:
    return rule.split("_")[0]


def usual_length(rule: str, lengths: Mapping[str, list[float]]) -> float | None:
    """Mean seconds of the jobs of a rule, or else of rules whose names begin with the same word, or else,
    unless it is a measurement, of all that are none; None if there are none of these either."""
    word = first_word(rule)
    alike = lengths.get(rule) or _together(lengths, lambda other: other == word)
    if not alike and word not in MEASUREMENTS:
        alike = _together(lengths, lambda other: other not in MEASUREMENTS)
    return sum(alike) / len(alike) if alike else None


def _together(lengths: Mapping[str, list[float]], fits: Callable[[str], bool]) -> list[float]:
    """The lengths of all rules whose first word fits."""
    return [length for rule in lengths if fits(first_word(rule)) for length in lengths[rule]]
