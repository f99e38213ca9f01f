"""Prompt files, seeds, shards, and the names of files."""

import pytest

from galip_keras.sampling.requests import (
    MOST,
    SHEET,
    Output,
    check_prompt,
    list_outputs,
    parse_seeds,
    parse_shard,
    read_prompts,
)

# This does not depend on the backend.
pytestmark = pytest.mark.backend("tensorflow")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "a.txt",
            "\ufeffan owl\r\n\r\n  a barn ",
            [("an owl", None), ("a barn", None)],
        ),
        ("a.txt", '"a, b"\n{}', [('"a, b"', None), ("{}", None)]),
        (
            "a.jsonl",
            '\ufeff{"prompt": " an owl ", "seed": 3}\r\n\r\n'
            '{"prompt": "a\\u0000barn", "seeds": [2, 0], "seed": null, "id": 1}\n'
            '{"prompt": "a\u2028tent", "seeds": "0-2,7"}\n{"prompt": "猫"}',
            [
                ("an owl", [3]),
                ("a\0barn", [2, 0]),
                ("a\u2028tent", [0, 1, 2, 7]),
                ("猫", None),
            ],
        ),
        (
            "a.CSV",
            '\ufeffid, prompt, seed, seeds\r\n1,"an owl, flying",3,\r\n\r\n'
            "2,a barn,,0-1\r\n3,a tent\r\n",
            [("an owl, flying", [3]), ("a barn", [0, 1]), ("a tent", None)],
        ),
        (
            "a.JSON",
            '\ufeff[\n"an owl", {"prompt": "a barn", "seed": 3}\n]',
            [("an owl", None), ("a barn", [3])],
        ),
        ("a.json", '{"prompt": "an owl"}', [("an owl", None)]),
        ("a.json", '"an owl"\n"a barn"\n', [("an owl", None), ("a barn", None)]),
        ("a.json", "[]", []),
        (
            "a.jsonl",
            '"an owl"\n{"prompt": "a barn"}',
            [("an owl", None), ("a barn", None)],
        ),
        ("a.csv", f"prompt,seeds\nx,{2**63 - 1}", [("x", [2**63 - 1])]),
        ("a.csv", "", []),
        ("a.csv", "prompt\n", []),
        ("a.jsonl", "\n", []),
        ("a.txt", "", []),
    ],
)
def test_prompts_files(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content.encode())
    assert read_prompts(str(tmp_path / name)) == expected


def test_a_prompt_must_say_something():
    assert check_prompt("an owl, 猫") == "an owl, 猫"
    assert check_prompt("x" * 2000)
    for wrong, message in (
        (" \n", "blank"),
        ("x" * 2001, "more than 2000 characters"),
        ("\ud800", "not valid UTF-8"),
    ):
        with pytest.raises(ValueError, match=message):
            check_prompt(wrong)


def test_seeds():
    assert parse_seeds("3") == [3]
    assert parse_seeds(" 5, 0-2,1") == [5, 0, 1, 2]
    assert parse_seeds(str(2**63 - 1)) == [2**63 - 1]
    assert len(parse_seeds(f"0-{MOST - 1}")) == MOST
    for wrong, message in (
        ("", "is not like"),
        ("-1", "is not like"),
        ("1.5", "is not like"),
        ("9" * 100, "is not like"),
        ("7-0", "must ascend"),
        (str(2**63), "below 2"),
        (f"0-{MOST}", "more than 1000000 seeds"),
        (f"0-{MOST - 2},{2 * MOST}-{2 * MOST + 1}", "more than 1000000 seeds"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_seeds(wrong)


def test_shards_are_disjoint_and_complete():
    items = list(range(10))
    shards = [items[parse_shard(f"{i}/3")] for i in (1, 2, 3)]
    assert shards == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert items[parse_shard("1/1")] == items
    for wrong in ("", "0/2", "3/2", "1/0", "1/2/3", "half", "-1/2"):
        with pytest.raises(ValueError, match="is not like 1/8"):
            parse_shard(wrong)


def test_names():
    assert Output("An owl!", (3,)).name().startswith("an-owl-")
    assert Output("an owl", (3,)).name() == "an-owl-3"
    assert Output("an owl", SHEET).name() == "an-owl"
    prompts = (
        "an owl",
        "An owl",
        "an-owl",
        "an owl!",
        "a" * 61,
        "a" * 62,
        "猫",
        "/",
        "é",
    )
    for seeds in ((3,), SHEET):
        names = [Output(prompt, seeds).name() for prompt in prompts]
        assert len(set(names)) == len(names)
        assert all(
            set(x) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for x in names
        )
        assert max(map(len, names)) < 100
    # The names of a grid and of the image of a seed are taken.
    assert Output("grid", SHEET).name() != "grid"
    assert Output("an owl 3", SHEET).name() != Output("an owl", (3,)).name()
    # Prompts that are added or subtracted are part of the request.
    owl = Output("an owl", (3,))
    sums = (
        owl.name(),
        owl.name(["red"]),
        owl.name(["red"], ["blue"]),
        owl.name([], ["red"]),
    )
    assert len(set(sums)) == 4


def test_outputs():
    rows = [("an owl", [4, 1, 4]), ("an owl", [1]), ("an owl", None), ("an owl", None)]
    single = [Output("an owl", (4,)), Output("an owl", (1,))]
    assert list_outputs(rows, []) == [*single, Output("an owl", SHEET)]
    assert list_outputs(rows, [2, 1]) == [*single, Output("an owl", (2,))]
    assert Output("an owl", SHEET).columns == 4
    with pytest.raises(ValueError, match="ask for them in parts"):
        list_outputs([("x", None), ("y", None)], range(MOST // 2 + 1))
    assert list_outputs([("x", [2**62 - 1])], [], candidates=2)
    with pytest.raises(ValueError, match=f"seed {2**62} has no 2 candidates"):
        list_outputs([("x", [2**62])], [], candidates=2)
