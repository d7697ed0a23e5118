"""Look-ups that meet something else than the history, and replays of what is in doubt."""

from consumer.sandbox.replies import Page
from tests.faults.account import Row
from tests.faults.doubts import expect_found, expect_lag, lose_answers, replayed
from tests.faults.life import until
from tests.faults.stage import Stage

PAGES = {
    "maintenance": Page(200, "<html>Technical works</html>"),
    "firewall": Page(403, "<html>Blocked</html>"),
    "gateway": Page(502, "<html>Bad Gateway</html>"),
}
LOOK_UPS = 4
"""So many in a row meet a page: two for each request."""
LAG_S = 6
RINGS_S = 4


async def the_history_hidden_by_a_page(stage: Stage) -> list[Row]:
    """It was readable before, to this process or to an earlier one; in doubt it would dial."""
    settings, processes = {"when_unsure": "retry"}, stage.times(2, 1)
    async with stage.bench("hidden") as bench:
        worker = await bench.start_trusted(settings)
        known = await lose_answers(bench, ["reset"])
        await bench.settled()
        expect_found(bench, *known)
        for _ in range(processes):
            for page in PAGES.values():
                bench.portal.pages = [page] * LOOK_UPS
                rang, silent = await lose_answers(bench, ["reset"])
                await bench.told(rang + silent, 60)
                expect_found(bench, rang, silent)
                if bench.portal.pages:
                    bench.wrong.append(f"{len(bench.portal.pages)} pages were not seen")
            await worker.terminated()
            worker = await bench.start(settings=settings)
        await bench.settled()
        await bench.close_books()
        fault = "history readable, then an HTML page, 403 or 502"
        return [bench.row(fault, processes * len(PAGES))]


async def an_unsure_letter_replayed_within_the_lag(stage: Stage) -> list[Row]:
    """While no history was to be read it became a dead letter at once: the phone still rings."""
    times = stage.times(5, 1)
    async with stage.bench("within") as bench:
        await bench.start_trusted({"history_lag_s": LAG_S})
        bench.portal.patch({"call_duration_s": RINGS_S})
        for _ in range(times):
            bench.portal.patch({"history": "denied"})
            rang, silent = await lose_answers(bench, ["reset"])
            ids = rang + silent
            await bench.settled()
            for request_id in ids:
                if [event.reason for event in bench.finals(request_id)] != ["unsure"]:
                    bench.wrong.append(f"{request_id} is not unsure: {bench.finals(request_id)}")
            bench.portal.patch({"history": "any"})
            await bench.replay_all()
            await until(lambda: all(replayed(bench, i) for i in ids), 60)  # noqa: B023
            for request_id in rang:
                if bench.finals(request_id)[-1].confirmed_by != "history":
                    bench.wrong.append(f"{request_id} was not found: {bench.finals(request_id)}")
            expect_lag(bench, silent, LAG_S)
        await bench.settled()
        await bench.close_books()
        return [bench.row("unsure dead letter replayed within the lag", 2 * times)]
