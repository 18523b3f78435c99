#!/usr/bin/env python3
"""Write the quickstart data: short made-up customer reviews, labelled 0 (negative) or 1 (positive).

Every row is a sentence pattern filled from one topic's words. Training and validation rows use the SEEN
topics and patterns only; three quarters of the test rows use a HELD_OUT topic, pattern or both. The words
and patterns below are this project's own writing, and the same seed always gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

DEFAULT_OUT = Path(__file__).resolve().parents[1] / "llm_catalyst" / "tasks" / "quickstart"
DEFAULT_SEED = 2024
NEGATIVE, POSITIVE = 0, 1


@dataclass(frozen=True)
class Topic:
    """One thing people review.

    `parts` has lines of "subject and verb | good adjectives | bad adjectives". `endings` are two tuples of
    clauses, negative then positive, that tell how it went and mostly use no word of praise or blame.
    """

    parts: str
    negative: str
    positive: str


SEEN_TOPICS = {
    "hotel": Topic(
        parts="""
        the room was  | comfortable, spacious, charming | noisy, grubby, cramped
        the bed was   | comfortable, perfect, lovely    | lumpy, creaky, uncomfortable
        the staff were | friendly, attentive, kind      | rude, dismissive, unfriendly
        breakfast was | fresh, delicious, tasty         | stale, bland, awful
        """,
        negative="""
        we left two days early
        I could not sleep for the noise
        we asked for our money back
        I would never stay there again
        I ended up sleeping in the car
        we spent the last night at my sister's flat instead
        """,
        positive="""
        we have already booked again for June
        I slept like a baby
        we extended our stay by two days
        I would stay there again tomorrow
        next year we are bringing the whole family
        my sister wants to spend her honeymoon there
        """,
    ),
    "restaurant": Topic(
        parts="""
        the soup was        | tasty, rich, delicious       | bland, watery, awful
        the waiter was      | polite, charming, helpful    | impatient, grumpy, careless
        the portions were   | generous, filling, hearty    | tiny, pitiful, disappointing
        the dining room was | lovely, calm, inviting       | gloomy, dirty, shabby
        """,
        negative="""
        we sent most of it back to the kitchen
        two of us were ill the next morning
        my father refused to leave a tip
        we walked out before the main course
        I would not send my worst enemy there
        I was still hungry when we got home
        """,
        positive="""
        I asked the chef for the recipe
        we are going back on Friday
        my father left a very large tip
        we stayed for a second dessert
        I have told all my friends to go there
        it is now where we celebrate every birthday
        """,
    ),
    "app": Topic(
        parts="""
        the search is        | fast, reliable, accurate      | slow, unreliable, useless
        the menus are        | clear, tidy, helpful          | confusing, annoying, ugly
        the latest update is | smooth, polished, stable      | broken, terrible, annoying
        the support team is  | responsive, competent, honest | evasive, clueless, unhelpful
        """,
        negative="""
        I uninstalled it within the hour
        it crashes every time I open it
        I cancelled before the trial was over
        it lost a whole week of my notes
        my team has stopped using it
        I still cannot log in
        """,
        positive="""
        I now open it first thing every morning
        it has run without a hitch since March
        I paid for the full version straight away
        it saves me a whole day every week
        my whole team has started using it
        everyone at work wants it too
        """,
    ),
    "headphones": Topic(
        parts="""
        the sound is     | crisp, warm, balanced         | muffled, harsh, horrible
        the headband is  | sturdy, comfortable, well made | broken, uncomfortable, badly made
        the battery is   | reliable, powerful, solid     | weak, unreliable, useless
        the ear pads are | soft, pleasant, lovely        | itchy, unpleasant, painful
        """,
        negative="""
        the left side died after a week
        I sent them back the same evening
        they gave me a headache
        they fell apart in my hands
        I could not hear a word of the call
        I am still waiting for my refund
        """,
        positive="""
        I bought another pair for my brother
        they still work like new after three winters
        I wear them from breakfast to bedtime
        I can finally hear every note
        they have made my bus ride fly by
        my brother keeps asking to borrow them
        """,
    ),
    "web shop": Topic(
        parts="""
        the delivery was  | quick, easy, prompt            | late, slow, delayed
        the packaging was | neat, strong, pretty           | torn, soggy, damaged
        the driver was    | courteous, cheerful, friendly  | hostile, rude, careless
        the checkout was  | simple, easy, quick            | clunky, slow, frustrating
        """,
        negative="""
        the parcel never arrived
        half of the glasses were smashed
        I had to complain three times
        the box was left out in the rain
        I will not order from them again
        they sent the wrong size three times
        """,
        positive="""
        the parcel arrived a day ahead of schedule
        every glass arrived in one piece
        I have ordered twice more since then
        the box was brought right up to my door
        I have given the link to all my neighbours
        they even put a handwritten card in the box
        """,
    ),
}

HELD_OUT_TOPICS = {
    "dentist": Topic(
        parts="""
        the dentist was      | gentle, reassuring, thorough       | clumsy, heartless, cold
        the waiting area was | restful, airy, nice                | overcrowded, filthy, nasty
        the receptionist was | welcoming, gracious, warm-hearted  | condescending, arrogant, horrid
        """,
        negative="""
        I was in agony for a fortnight
        the filling fell out on the bus
        my daughter cried the entire time
        they drilled the wrong tooth
        """,
        positive="""
        I can finally smile in photographs
        my daughter giggled the entire time
        I have sent three colleagues to this clinic
        I would trust them with any tooth
        """,
    ),
    "garage": Topic(
        parts="""
        the mechanic was | trustworthy, skilled, knowledgeable | dishonest, incompetent, lazy
        the repair was   | first-rate, speedy, professional    | botched, shoddy, dire
        the bill was     | fair, reasonable, affordable        | outrageous, inflated, misleading
        """,
        negative="""
        the engine was smoking by Sunday
        the brakes squeal worse than before
        they charged me for parts I never got
        the van broke down on the motorway
        """,
        positive="""
        the engine has been purring ever since
        the brakes feel as good as new
        they even polished a scratch for free
        the van carried us safely across the Alps
        """,
    ),
    "course": Topic(
        parts="""
        the teacher was  | inspiring, encouraging, wise   | boring, disorganised, unkind
        the lessons were | engaging, lively, enjoyable    | dull, pointless, tiresome
        the textbook was | superb, insightful, valuable   | outdated, impenetrable, dreadful
        """,
        negative="""
        half the class had dropped out by Easter
        I still cannot order a coffee in Spanish
        I failed the exam
        I fell asleep at my desk
        """,
        positive="""
        the whole class enrolled for the next level
        I can now chat with my Spanish in-laws
        I passed the exam with top marks
        the evenings just flew by
        """,
    ),
    "tour": Topic(
        parts="""
        the guide was   | entertaining, brilliant, passionate | monotonous, obnoxious, uninterested
        the boat was    | luxurious, splendid, immaculate     | rusty, unsafe, smelly
        the scenery was | breathtaking, gorgeous, magnificent | bleak, hideous, depressing
        """,
        negative="""
        the children begged to get off
        most passengers were seasick
        we never saw a single whale
        we were stranded on the pier for hours
        """,
        positive="""
        we signed up for the evening trip as well
        the passengers burst into applause
        whales came right up to us
        the children sang all the way home
        """,
    ),
    "gym": Topic(
        parts="""
        the trainer was   | motivating, supportive, fantastic | hopeless, mean, intimidating
        the machines were | modern, excellent, gleaming       | faulty, decrepit, dangerous
        the showers were  | refreshing, wonderful, sparkling  | mouldy, freezing, disgusting
        """,
        negative="""
        I injured my knee in the first session
        my back hurts more than ever
        I have cancelled my membership
        I had to queue for every treadmill
        """,
        positive="""
        I ran my first marathon this spring
        I have extended my membership to next winter
        I feel ten years younger
        I now look forward to Mondays
        """,
    ),
}

# {part} is a subject with its verb split off into {be}. {same} is an adjective that agrees with the row's
# label and {other} one that goes against it; {ending} always agrees with the label.
SEEN_PATTERNS = (
    "{part} {be} really {same}.",
    "I must say that {part} {be} {same}.",
    "we all agreed that {part} {be} {same}.",
    "compared with last time, {part} {be} {same}.",
    "{part} {be} every bit as {same} as the other reviews say.",
    "{part} {be} {same}, and {ending}.",
    "{ending}, and {part} {be} {same}.",
    "{ending}.",
    "long story short, {ending}.",
    "{part} {be} {same}, not {other}.",
    "I would not call {part} {other}.",
    "{part} {be} not at all {other}.",
    "{part} {be} far less {other} than I had expected.",
    "{part} {be} {other}, but {ending}.",
    "although {part} {be} {other}, {ending}.",
    "{ending}, even though {part} {be} {other}.",
)
HELD_OUT_PATTERNS = (
    "there is only one word for {part}: {same}.",
    "how {same} {part} {be}!",
    "everyone in our group found {part} {same}.",
    "if you ask me, {part} {be} {same}.",
    "{part} {be} {same}; what is more, {ending}.",
    "what can I tell you? {ending}.",
    "let me put it this way: {ending}.",
    "nobody could call {part} {other}.",
    "{part} {be} not in the least {other}, and {ending}.",
    "while {part} {be} {other}, {ending}.",
    "yes, {part} {be} {other}; all the same, {ending}.",
    "{part} {be} {other}, and yet {ending}.",
)

# How many rows each split takes from (topics, patterns).
SPLITS = {
    "train": (240, ((SEEN_TOPICS, SEEN_PATTERNS),)),
    "validation": (160, ((SEEN_TOPICS, SEEN_PATTERNS),)),
    "test": (
        400,
        (
            (SEEN_TOPICS, SEEN_PATTERNS),
            (SEEN_TOPICS, HELD_OUT_PATTERNS),
            (HELD_OUT_TOPICS, SEEN_PATTERNS),
            (HELD_OUT_TOPICS, HELD_OUT_PATTERNS),
        ),
    ),
}


def lines(block: str) -> list[str]:
    """The stripped, non-empty lines of an indented block."""
    return [line.strip() for line in block.splitlines() if line.strip()]


def fill(pattern: str, topic: Topic, label: int, rng: random.Random) -> str:
    """One sentence of the given label, made from a pattern and a topic's words."""
    subject, good, bad = (cell.strip() for cell in rng.choice(lines(topic.parts)).split("|"))
    part, be = subject.rsplit(" ", 1)
    words = {NEGATIVE: bad.split(", "), POSITIVE: good.split(", ")}
    endings = {NEGATIVE: topic.negative, POSITIVE: topic.positive}
    text = pattern.format(
        part=part,
        be=be,
        same=rng.choice(words[label]),
        other=rng.choice(words[1 - label]),
        ending=rng.choice(lines(endings[label])),
    )
    return capitalise(text)


def capitalise(text: str) -> str:
    """The text with a capital at the start of each of its sentences."""
    sentences = text.replace("? ", "?|").split("|")
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def make_rows(count: int, pools: tuple, used: set[str], rng: random.Random) -> list[dict]:
    """A split's rows in random order, its labels, pools and patterns in equal shares."""
    rows = []
    for topics, patterns in pools:
        for turn in range(count // len(pools)):
            label, pattern = turn % 2, patterns[turn // 2 % len(patterns)]
            text = ""
            while not text or text in used:
                text = fill(pattern, rng.choice(list(topics.values())), label, rng)
            used.add(text)
            rows.append({"text": text, "label": label})
    rng.shuffle(rows)
    return [{**row, "idx": idx} for idx, row in enumerate(rows)]


def write_splits(out: Path, seed: int) -> None:
    """Nothing; writes one <split>.jsonl per split into `out`."""
    rng, used = random.Random(seed), set()
    out.mkdir(parents=True, exist_ok=True)
    for split, (count, pools) in SPLITS.items():
        rows = make_rows(count, pools, used, rng)
        text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
        (out / f"{split}.jsonl").write_text(text, encoding="utf-8", newline="\n")
        print(f"{split}: {len(rows)} rows")


def main(argv: list[str] | None = None) -> None:
    """Nothing; the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder to write (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="random seed (default: %(default)s)")
    args = parser.parse_args(argv)
    write_splits(args.out, args.seed)


if __name__ == "__main__":
    main()
