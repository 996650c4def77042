"""The page on flow control shows what the simulation says."""

from __future__ import annotations

from tests.flow_control import table


def test_the_pages_table_is_the_simulated_one() -> None:
    assert table.PAGE.read_text("utf-8") == table.page_with(table.table()), "run: python -m tests.flow_control.table"
