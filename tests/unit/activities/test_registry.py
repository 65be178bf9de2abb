"""What a host may write down of an activity that failed: that it did, and how it is called, never what it said."""

import traceback

import pytest

from activities.registry import ActivityError, guarded


async def test_the_text_of_a_surprise_stays_out_of_durable_history():
    async def reads_a_secret():
        raise ValueError("input_value='ana@contoso.example'")

    with pytest.raises(ActivityError, match=r"^ValueError$") as caught:
        await guarded(reads_a_secret())
    assert "ana@" not in "".join(traceback.format_exception(caught.value))


async def test_a_result_goes_through_as_it_is():
    async def planned():
        return {"status": "planned"}

    assert await guarded(planned()) == {"status": "planned"}
