"""The ILF study step by step: before, the rounds, after. Each step is a stage of the run and is never done twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amenable.errors import DataError
from amenable.feedback.client import ChatClient, Endpoint
from amenable.feedback.critic import Ask, ModelCritic, PersonCritic, TestCritic, asking, shuffled
from amenable.feedback.kinds import Critic
from amenable.feedback.refiner import PromptedRefiner, refinement_prompt
from amenable.method import ilf
from amenable.method.imitation import Example, Imitation
from amenable.method.loop import Optimisation
from amenable.policy.loading import load_policy
from amenable.progress import say
from amenable.recipes.environment import Clock
from amenable.recipes.programs import Attempt, Workbench
from amenable.recipes.training import trained
from amenable.records import Critique, Samples, Task, Verdict
from amenable.seeding import derive
from amenable.task.programming import completion_of, cut_completion


@dataclass(frozen=True)
class Material:
    """The tasks of a study, what people wrote (empty: nothing), and a line that says what the tasks are.

    `given_drafts`: the drafts are those that people saw, and not drawn from the model.
    """

    train: list[Task]
    test: list[Task]
    refine: list[Task]
    critiques: dict[str, Critique]
    what: str
    given_drafts: bool = False


@dataclass(frozen=True)
class Round:
    """What one round made: whether each draft passed, failing ones refined, refinements by arm, examples, metrics."""

    drafts_passed: list[bool | None]
    failing: int
    arms: dict[str, list[Attempt]]
    examples: int
    metrics: list[dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """Everything the report is made of."""

    before: list[Attempt]
    after: list[Attempt]
    rounds: list[Round]
    accepted: list[Attempt]
    model: Path


class Study:
    """One run of the recipe `ilf`; `settings` is its ILFSettings."""

    def __init__(self, settings: Any, tasks: Material, bench: Workbench, folder: Path, clock: Clock) -> None:
        self.settings, self.tasks, self.bench, self.folder, self.clock = settings, tasks, bench, folder, clock
        self.prior = load_policy(settings.model, rows=settings.rows, trust_remote_code=settings.trust_remote_code)
        clock.lap("loading")

    def run(self) -> Outcome:
        before = self._evaluate("before", self.prior)
        refiner = self._refiner()
        policy = self.prior
        kept: dict[str, Attempt] = {}
        rounds = []
        for number in range(1, self.settings.rounds + 1):
            drafts, passed = self._drafts(policy, number)
            arms = self._refine(drafts, refiner or policy, number)
            for one in ilf.accepted(arms[self.settings.feedback], seed=derive(self.bench.seed, "accept", number)):
                kept.setdefault(one.task.task_id, one)
            say(f"round {number}: {len(drafts)} failing drafts; {len(kept)} tasks with an accepted refinement so far")
            examples = self._examples(list(kept.values()))
            policy, metrics = self._train(f"round-{number}", examples)
            rounds.append(Round(passed, len(drafts), arms, len(examples), metrics))
        after = self._evaluate("after", policy)
        return Outcome(before, after, rounds, list(kept.values()), self.folder / f"round-{len(rounds)}" / "model")

    def _evaluate(self, name: str, policy: Any) -> list[Attempt]:
        found = self.bench.samples_of(name, policy, self.tasks.test, n=self.settings.samples)
        self.clock.lap("evaluation")
        return found

    def _refiner(self) -> Any:
        """The model that refines, or None where it is the policy itself."""
        chosen = self.settings.refiner
        if chosen == "prompted":
            return None
        if chosen != "trained":
            return load_policy(chosen, rows=self.settings.rows)
        examples = []
        for task in self.tasks.refine:
            critique = self.tasks.critiques[task.task_id]
            completion = completion_of(task, critique.refinement or "")
            if completion is not None:
                prompt = refinement_prompt(critique.draft, critique.feedback) + task.prompt
                examples.append(ilf.program_example(prompt, cut_completion(completion)))
        return self._train("refiner", examples)[0]

    def _drafts(self, policy: Any, number: int) -> tuple[list[ilf.Draft], list[bool | None]]:
        """Failing drafts of the training tasks, one a task, and whether each draft passed (None: missing)."""
        tasks = self.tasks.train
        if self.tasks.given_drafts:
            owners = tasks
            programs = [self.tasks.critiques[task.task_id].draft for task in tasks]
            rows = self.bench.run.stage(
                "given drafts", lambda: [verdict.as_row() for verdict in self.bench.check(owners, programs)]
            )
            verdicts = [Verdict.from_row(row) for row in rows]
        else:
            found = self.bench.samples_of(f"round {number} drafts", policy, tasks, n=self.settings.drafts)
            owners, programs = [one.task for one in found], [one.program for one in found]
            verdicts = [one.verdict for one in found]
        drafts = ilf.failing(owners, programs, verdicts, seed=derive(self.bench.seed, "drafts", number))
        self.clock.lap("drafts")
        if not drafts:
            raise DataError("every draft passes its tests: there is nothing to give feedback on", "use harder tasks")
        return drafts, [None if verdict.missing else verdict.ok for verdict in verdicts]

    def _refine(self, drafts: Sequence[ilf.Draft], policy: Any, number: int) -> dict[str, list[Attempt]]:
        """Judged refinements by arm: the study's own feedback, and in round 1 the controls."""
        chosen = self.settings.feedback
        words = self._critiques(drafts, number)
        kept = [(draft, text) for draft, text in zip(drafts, words, strict=True) if text]
        if not kept:
            raise DataError(
                f"no critique came for any of {len(drafts)} drafts", "look at the critic, or use feedback=tests"
            )
        layout: Any = "paper" if self.settings.refiner == "trained" else "auto"
        law = replace(self.bench.decoding, temperature=self.settings.refinement_temperature)
        refiner = PromptedRefiner(policy, law, layout)
        limit = self.settings.longest_prompt
        short = [
            (draft, text)
            for draft, text in kept
            if len(policy.encode(refiner.prompt(draft.task, draft.program, text))) <= limit
        ]
        if len(short) < len(kept):
            say(
                f"{len(kept) - len(short)} drafts left out: their refinement prompt is over longest_prompt={limit} tokens"
            )
        drafts, texts = [draft for draft, _ in short], [text for _, text in short]
        controls = self.settings.controls and number == 1
        given = {}
        if chosen not in ("none", "shuffled"):
            given[chosen] = texts
        if chosen == "shuffled" or controls:
            given["shuffled"] = shuffled(texts, derive(self.bench.seed, "shuffle", number))
        if chosen == "none" or controls:
            given["none"] = [""] * len(texts)
        arms = {
            arm: self.bench.attempts(
                f"round {number} refinements, feedback {arm}",
                [draft.task for draft in drafts],
                _refinement_draws(refiner, drafts, critiques),
                n=self.settings.refinements,
                drafts=[draft.program for draft in drafts],
                critiques=critiques,
            )
            for arm, critiques in given.items()
        }
        self.clock.lap("refinements")
        return arms

    def _critiques(self, drafts: Sequence[ilf.Draft], number: int) -> list[str | None]:
        critic: Critic = TestCritic()
        if self.settings.feedback == "llm":
            critic = ModelCritic(self._critic(derive(self.bench.seed, "critic", number)))
        elif self.tasks.given_drafts:
            critic = PersonCritic(self.tasks.critiques)

        def compute() -> list[dict[str, Any]]:
            found = critic([draft.task for draft in drafts], [d.program for d in drafts], [d.verdict for d in drafts])
            return [{"task_id": d.task.task_id, "feedback": text} for d, text in zip(drafts, found, strict=True)]

        return [row["feedback"] for row in self.bench.run.stage(f"round {number} feedback", compute)]

    def _critic(self, seed: int) -> Ask:
        """The model that is asked: MODEL@URL behind a server, a model of one's own, or the pretrained model itself."""
        name, _, url = self.settings.critic.partition("@")
        if url:
            cache = self.folder / "answers"
            return ChatClient(Endpoint(url, name, cache, max_tokens=120, temperature=0.7, seed=seed)).ask
        return asking(load_policy(name, rows=self.settings.rows) if name else self.prior, seed=seed)

    def _examples(self, kept: Sequence[Attempt]) -> list[Example]:
        """What is imitated: the accepted refinements, or on the same tasks what people or the data set wrote."""
        if self.settings.imitate == "refinements" or not kept:
            return ilf.imitation_examples(kept)
        programs = {
            one.task.task_id: one.task.solution
            if self.settings.imitate == "solutions"
            else self.tasks.critiques[one.task.task_id].refinement
            for one in kept
        }
        examples = []
        for one in kept:
            completion = completion_of(one.task, programs[one.task.task_id] or "")
            if completion is not None:
                examples.append(ilf.program_example(one.task.prompt, cut_completion(completion)))
        if not examples:
            raise DataError(
                f"none of the {len(kept)} tasks has a usable program to imitate ({self.settings.imitate})",
                "use imitate=refinements",
            )
        return examples

    def _train(self, name: str, examples: Sequence[Example]) -> tuple[Any, list[dict[str, Any]]]:
        s = self.settings
        seed = derive(self.bench.seed, "imitation", name)
        result = trained(
            self.prior,
            Imitation(examples, epochs=s.epochs, batch_size=s.batch_size, seed=seed),
            optimisation=Optimisation(learning_rate=s.learning_rate, precision=s.precision),
            adapter=s.adapter,
            folder=self.folder / name,
            record=self.bench.run,
            checkpoint_every=s.checkpoint_every,
            on_full=s.on_full,
        )
        self.clock.lap("training")
        return result


def _refinement_draws(
    refiner: PromptedRefiner, drafts: Sequence[ilf.Draft], critiques: Sequence[str]
) -> Callable[..., Samples]:
    def draw(chosen: Sequence[int], **how: Any) -> Samples:
        parts = [(drafts[i].task, drafts[i].program, critiques[i]) for i in chosen]
        tasks, programs, texts = zip(*parts, strict=True)
        return refiner(tasks, programs, texts, **how)

    return draw
