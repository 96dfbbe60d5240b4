"""Drift in event time: which slice differs, when, and what is said of it. No clock but the results' own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from schemas.drift import DriftAlert, DriftBaseline, DriftState
from schemas.errors import ConfigurationError, RejectedError
from sinks.drift_adwin import Adwin, open_adwin
from sinks.drift_baseline import BaselineMaker, Reference, read_profiles, write_profiles
from sinks.drift_monitor import DriftMonitor
from sinks.drift_policy import DriftPolicy
from sinks.drift_profile import OTHER, Slice
from tests.support.drift import NOON, Camera, Scene, baseline_of, batch_of, run_of

HOUR = timedelta(hours=1)
POLICY = DriftPolicy(window_s=3600, lateness_s=60, min_images=100, adwin="off")
CAMERAS = [Camera(key=f"camera-{at}", attributes={"site": "north" if at < 5 else "south"}) for at in range(10)]
DIM = Scene(score=0.5, boxes=1.5)

Rows = Sequence[Mapping[str, Any]]


def yesterday(cameras: Sequence[Camera] = CAMERAS, images: int = 300) -> Rows:
    return [row for one in cameras for row in one.results(NOON - HOUR, NOON, images, seed=1)]


def hour_of(
    at: int, scenes: Mapping[str, Scene] | None = None, cameras: Sequence[Camera] = CAMERAS, images: int = 120
) -> Rows:
    """An hour of all cameras, `at` hours after noon; `scenes` of those that see something else."""
    start = NOON + at * HOUR
    return [
        row
        for one in cameras
        for row in one.results(start, start + HOUR, images, (scenes or {}).get(one.key, Scene()), seed=at + 2)
    ]


def monitor_of(baseline: DriftBaseline, policy: DriftPolicy = POLICY, **kwargs: Any) -> DriftMonitor:
    monitor = DriftMonitor(baseline, policy, kwargs.get("adwin"))
    monitor.clock.follow(0)
    return monitor


def feed(monitor: DriftMonitor, rows: Rows, first: int = 0) -> list[DriftAlert]:
    monitor.add(run_of(rows, 0, first))
    return monitor.advance(NOON)


def said(alerts: Sequence[DriftAlert]) -> set[tuple[str, str, str]]:
    return {(alert.slice, alert.statistic, str(alert.state)) for alert in alerts}


@pytest.fixture(scope="module")
def baseline() -> DriftBaseline:
    return baseline_of(yesterday(), POLICY, ("tenant", "key", "attributes.site"))


def test_one_camera_of_ten_degrades_and_only_its_slice_is_told(baseline: DriftBaseline) -> None:
    monitor = monitor_of(baseline)
    assert feed(monitor, hour_of(0)) == []  # open
    assert feed(monitor, hour_of(1)) == []  # noon's hour is closed, and like the baseline
    assert feed(monitor, hour_of(2, {"camera-3": DIM})) == []
    begun = feed(monitor, hour_of(3, {"camera-3": DIM}))
    assert {alert.slice for alert in begun} == {"key=camera-3"}
    assert ("key=camera-3", "score", "begins") in said(begun)
    alert = next(alert for alert in begun if alert.statistic == "score")
    assert (alert.window_start, alert.window_end) == (NOON + 2 * HOUR, NOON + 3 * HOUR)
    assert (alert.tenant, alert.detector, alert.images, alert.reference_images) == ("acme", "psi", 120, 300)
    assert alert.value > alert.threshold >= POLICY.psi
    lasting = feed(monitor, hour_of(4))
    assert ("key=camera-3", "score", "lasts") in said(lasting)
    ended = feed(monitor, hour_of(5))
    assert {alert.slice for alert in ended} == {"key=camera-3"}
    assert {alert.state for alert in ended} == {DriftState.ENDS}
    assert monitor.differing == {}
    assert feed(monitor, hour_of(6)) == []


def test_a_group_that_is_told_apart_by_an_attribute_is_not_averaged_away(baseline: DriftBaseline) -> None:
    # A little more of an unknown class at one site: too little in each camera's hour to be more than chance, but not in all five.
    odd = Scene(labels={"person": 0.55, "dog": 0.25, "fox": 0.2})
    monitor = monitor_of(baseline, replace(POLICY, min_images=200))
    feed(monitor, hour_of(0, {f"camera-{at}": odd for at in range(5)}))
    alerts = feed(monitor, hour_of(1))
    assert ("attributes.site=north", "class_mix", "begins") in said(alerts)
    assert not [alert for alert in alerts if alert.slice == "attributes.site=south"]


@pytest.mark.parametrize(
    ("scene", "statistic"),
    [
        (Scene(labels={"person": 0.3, "dog": 0.7}), "class_mix"),
        (Scene(score=0.55), "score"),
        (Scene(scale=0.5), "box_size"),
        (Scene(boxes=0.7), "empty"),
    ],
)
def test_each_statistic_tells_its_own_change(baseline: DriftBaseline, scene: Scene, statistic: str) -> None:
    monitor = monitor_of(baseline)
    feed(monitor, hour_of(0, {"camera-7": scene}))
    alerts = said(feed(monitor, hour_of(1)))
    assert {told for told in alerts if "key=" in told[0]} == {("key=camera-7", statistic, "begins")}


def test_boxes_of_another_shape_are_told() -> None:
    def stretched(rows: Rows) -> Rows:
        return [{**row, "detections": [{**box, "x2": box["x2"] * 1.6} for box in row["detections"]]} for row in rows]

    monitor = monitor_of(baseline_of(yesterday(CAMERAS[:1]), POLICY))
    feed(monitor, stretched(hour_of(0, cameras=CAMERAS[:1])))
    assert ("key=camera-0", "box_aspect", "begins") in said(feed(monitor, hour_of(1, cameras=CAMERAS[:1])))


def test_chance_alone_raises_no_alert() -> None:
    policy = replace(POLICY, min_images=200, adwin="on")
    monitor = monitor_of(baseline_of(yesterday(), policy), policy, adwin=Adwin(policy.chance))
    alerts = [alert for at in range(4) for alert in feed(monitor, hour_of(at, images=200))]
    assert monitor.counts["judged"] == 3 * 11
    assert alerts == []


def test_adwin_tells_a_mean_that_moved_too_little_for_psi() -> None:
    camera = [Camera(key="camera-0")]
    policy = replace(POLICY, adwin="on")
    monitor = monitor_of(baseline_of(yesterday(camera, 1_500), policy), policy, adwin=Adwin(policy.chance))
    feed(monitor, hour_of(0, {"camera-0": Scene(score=0.68)}, camera, images=1_500))
    alerts = feed(monitor, hour_of(1, cameras=camera))
    by_key = [alert for alert in alerts if alert.slice == "key=camera-0"]
    assert "adwin" in {alert.detector for alert in by_key if alert.statistic == "score"}
    assert {alert.statistic for alert in by_key} == {"score"}


def test_adwin_runs_where_river_is_installed_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_adwin("off", 0.001) is None
    assert isinstance(open_adwin("auto", 0.001), Adwin)
    monkeypatch.setattr("sinks.drift_adwin.find_spec", lambda name: None)
    assert open_adwin("auto", 0.001) is None
    with pytest.raises(ConfigurationError, match="pip install"):
        open_adwin("on", 0.001)


def test_a_slow_camera_gathers_until_it_has_enough(baseline: DriftBaseline) -> None:
    slow = CAMERAS[:1]
    monitor = monitor_of(baseline)
    for at in range(3):  # 40 images an hour: too few until the third
        assert feed(monitor, hour_of(at, {"camera-0": DIM}, slow, images=40)) == []
    alerts = feed(monitor, hour_of(3, {"camera-0": DIM}, slow, images=40))
    mine = [alert for alert in alerts if alert.slice == "key=camera-0"]
    assert mine
    assert {(alert.window_start, alert.window_end, alert.images) for alert in mine} == {(NOON, NOON + 3 * HOUR, 120)}


def test_a_slice_that_never_has_enough_is_dropped_and_counted(baseline: DriftBaseline) -> None:
    policy = replace(POLICY, max_span_s=2 * 3600)
    monitor = monitor_of(baseline, policy)
    for at in range(8):
        assert feed(monitor, hour_of(at, {"camera-0": DIM}, CAMERAS[:1], images=10)) == []
    assert monitor.counts["judged"] == 0
    assert monitor.counts["too_few"] > 0


def test_what_is_late_counts_nowhere_and_what_is_within_the_lateness_counts(baseline: DriftBaseline) -> None:
    monitor = monitor_of(baseline)
    feed(monitor, hour_of(0))
    in_time = CAMERAS[0].results(NOON + HOUR, NOON + HOUR + timedelta(seconds=50), 5)
    feed(monitor, in_time)  # noon's hour is over, but not for 60 s
    feed(monitor, CAMERAS[0].results(NOON, NOON + HOUR, 7))
    assert monitor.counts["late"] == 0
    feed(monitor, hour_of(2))
    feed(monitor, CAMERAS[0].results(NOON, NOON + HOUR, 9))
    assert monitor.counts["late"] == 9
    assert monitor.counts["counted"] == 1200 + 5 + 7 + 1200


def test_a_clock_that_runs_ahead_closes_no_window(baseline: DriftBaseline) -> None:
    monitor = monitor_of(baseline)
    feed(monitor, hour_of(0))
    wrong = run_of(CAMERAS[0].results(NOON + 1000 * HOUR, NOON + 1001 * HOUR, 3))
    monitor.add(replace(wrong, timestamps_ms=np.full(3, int((NOON + HOUR).timestamp() * 1000), np.int64)))
    assert monitor.advance(NOON) == []
    assert monitor.counts["future"] == 3
    assert monitor.closed_us == int(NOON.timestamp() * 1e6)


def test_windows_wait_for_the_partition_that_is_behind_and_not_for_one_that_ended(baseline: DriftBaseline) -> None:
    monitor = monitor_of(baseline)
    monitor.clock.follow(1)
    monitor.add(run_of(hour_of(0, {"camera-3": DIM}), 0))
    monitor.add(run_of(hour_of(9), 0))
    assert monitor.advance(NOON) == []  # nobody knows what partition 1 holds
    assert monitor.ahead() == {0}
    monitor.add(run_of(CAMERAS[9].results(NOON, NOON + HOUR / 2, 10), 1))
    assert monitor.advance(NOON) == []  # and it is still at noon
    monitor.clock.ended(1)
    assert {alert.slice for alert in monitor.advance(NOON)} == {"key=camera-3"}
    assert monitor.ahead() == frozenset()


def test_replays_and_other_models_count_nowhere() -> None:
    baseline = baseline_of(yesterday(), POLICY, model="yolo@3")
    monitor = monitor_of(baseline)
    feed(monitor, [{**row, "replay_id": "r"} for row in hour_of(0, {"camera-3": DIM})])
    feed(monitor, [{**row, "silent": True} for row in hour_of(0)])
    feed(monitor, [{**row, "model_version": "4"} for row in hour_of(0)])
    feed(monitor, hour_of(0))
    assert feed(monitor, hour_of(1)) == []
    assert (monitor.counts["passed_over"], monitor.counts["counted"]) == (3600, 2400)


def test_two_tenants_with_the_same_camera_are_two_slices() -> None:
    cameras = [Camera(key="door", tenant="acme"), Camera(key="door", tenant="bolt")]
    monitor = monitor_of(baseline_of(yesterday(cameras), POLICY))
    monitor.add(run_of(cameras[0].results(NOON, NOON + HOUR, 150, DIM)))
    monitor.add(run_of(cameras[1].results(NOON, NOON + HOUR, 150)))
    assert {alert.tenant for alert in feed(monitor, hour_of(1, cameras=cameras))} == {"acme"}


def test_a_restart_at_any_point_says_the_same(baseline: DriftBaseline) -> None:
    hours = [run_of(hour_of(at, {"camera-3": DIM} if 1 <= at <= 3 else None)) for at in range(6)]

    def watch(monitor: DriftMonitor, at: int) -> list[DriftAlert]:
        monitor.add(hours[at])
        return monitor.advance(NOON)

    whole = monitor_of(baseline)
    wanted = [alert for at in range(6) for alert in watch(whole, at)]
    assert len({alert.id for alert in wanted}) == len(wanted) > 0
    for stop_after in range(1, 6):
        first, second = monitor_of(baseline), monitor_of(baseline)
        got = [alert for at in range(stop_after) for alert in watch(first, at)]
        assert second.restore(json.loads(json.dumps(first.state())))
        got += [alert for at in range(stop_after, 6) for alert in watch(second, at)]
        assert got == wanted


def test_a_memory_of_another_baseline_is_of_no_use(baseline: DriftBaseline) -> None:
    state = monitor_of(baseline).state()
    assert not monitor_of(replace(baseline, created_at=NOON + timedelta(seconds=1))).restore(state)


def test_what_differs_is_forgotten_when_its_camera_is_gone(baseline: DriftBaseline) -> None:
    monitor = monitor_of(baseline, replace(POLICY, max_span_s=4 * 3600))
    for at in range(3):
        feed(monitor, hour_of(at, {"camera-3": DIM}))
    assert {str(aspect.slice) for aspect in monitor.differing} == {"acme key=camera-3"}
    for at in range(3, 9):
        feed(monitor, hour_of(at, cameras=CAMERAS[4:]))
    assert monitor.differing == {}


def test_a_baseline_keeps_no_more_slices_than_allowed_and_none_with_too_few_images() -> None:
    policy = replace(POLICY, max_slices=4)
    moments: dict[str, Any] = {"start": NOON - timedelta(days=1), "end": NOON}
    maker = BaselineMaker(Reference(id="b", slices=("tenant", "key"), **moments), policy)
    maker.add(
        batch_of(
            [*yesterday(CAMERAS[:2], 120), *CAMERAS[2].results(NOON - HOUR, NOON, 20), *yesterday(CAMERAS[3:5], 30)]
        )
    )
    maker.add(batch_of(hour_of(0)))  # after its end
    record, left_out = maker.finish(NOON)
    assert list(read_profiles(record.profiles)) == [
        Slice("acme"),
        Slice("acme", "key=camera-0"),
        Slice("acme", "key=camera-1"),
    ]
    assert [(one.name, profile.images) for one, profile in left_out.items()] == [("key=camera-2", 20)]
    assert maker.left_out == 60
    assert record.images == maker.images == 320
    assert (record.window_start, record.slices, record.created_at) == (moments["start"], ("tenant", "key"), NOON)


def test_classes_that_the_baseline_does_not_know_share_one_place() -> None:
    monitor = monitor_of(baseline_of(yesterday(CAMERAS[:1]), POLICY))
    zoo = Scene(labels={f"animal-{at}": 1 / 50 for at in range(50)})
    feed(monitor, hour_of(0, {"camera-0": zoo}, CAMERAS[:1]))
    (_, profile), *_ = read_profiles(next(iter(monitor.state()["windows"]["open"].values()))).items()
    assert set(profile.classes) == {OTHER}
    assert ("key=camera-0", "class_mix", "begins") in said(feed(monitor, hour_of(1, cameras=CAMERAS[:1])))


def test_profiles_come_back_as_they_were_written_and_nothing_else_is_taken(baseline: DriftBaseline) -> None:
    assert write_profiles(read_profiles(baseline.profiles)) == baseline.profiles
    for text in ("", "{}x", "[1]", '[{"tenant":"a","slice":"b"}]', baseline.profiles.replace("[4", "[4000")):
        with pytest.raises(RejectedError):
            read_profiles(text)


def test_a_frame_without_a_size_and_a_box_without_one_do_no_harm() -> None:
    camera = CAMERAS[:1]
    monitor = monitor_of(baseline_of(yesterday(camera), POLICY))
    box = {
        "label": "person",
        "class_id": 0,
        "score": float("nan"),
        "x1": 5.0,
        "y1": float("inf"),
        "x2": 5.0,
        "y2": -3.0,
    }
    feed(monitor, [{**row, "image_width": 0, "detections": [box]} for row in hour_of(0, cameras=camera)])
    assert ("key=camera-0", "score", "begins") in said(feed(monitor, hour_of(1, cameras=camera)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_s": 0},
        {"max_span_s": 1},
        {"chance": 0},
        {"slices": ("camera",)},
        {"slices": ()},
        {"adwin": "maybe"},
        {"min_images": 0},
    ],
)
def test_policies_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        DriftPolicy(**wrong)


@pytest.mark.parametrize("wrong", [{"id": ""}, {"end": NOON}, {"model": "yolo"}, {"slices": ("key", "key")}])
def test_references_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    sound: dict[str, Any] = {"id": "b", "start": NOON, "end": NOON + HOUR, "slices": ("key",)}
    with pytest.raises(ValueError, match=r"\w"):
        Reference(**(sound | wrong))
