"""Reads of DAOS that take long, or never come: what waits, for how long, and what others may do meanwhile."""

from __future__ import annotations

import pytest

from .standin import StandIn, available, run

pytestmark = available

FILES = 20

HANGING = """
    import functools, signal, sys, tempfile, threading, time
    from datapipes.records import HandleFile

    kept = HandleFile(os.path.join(tempfile.mkdtemp(), "table"), "these files", 100, 1 << 20)
    requests = [ReadRequest(f"{url}{n:02}", 0, -1, 1000) for n in range(20)]
    backend.read(url + "00")
    lib = ctypes.CDLL(os.path.join(os.environ["DATAPIPES_LIBDFS_DIR"], "libdaos.so.2"))
    lib.standin_count.restype = ctypes.c_long

    def hang(rule):
        lib.standin_reset()
        assert lib.standin_set(b"STANDIN_FAIL", rule) == 0

    def wait_for(condition):
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    def let_go():
        lib.standin_reset()
        lib.standin_release()

    if os.environ["HANDLES"]:  # all of which are known
        for name in "read_many", "read_batch":
            object.__setattr__(backend, name, functools.partial(getattr(backend, name), handles=kept))
        assert len(list(backend.read_many(requests))) == 20

    def check(results):
        for result in results:
            number = int(result.request.url[-2:])
            assert bytes(result.unwrap()) == bytes([number]) * 1000

    def nothing_left():
        live = ("files_open", "readers_live", "graveyard")
        wait_for(lambda: not any(backend.stats()[name] for name in live))
        assert not lib.standin_count(b"reads")
"""


@pytest.fixture(params=["", "known"], ids=["by path", "by handles"])
def handles(request: pytest.FixtureRequest) -> str:
    """For the variable that tells the program."""
    return str(request.param)


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    made = StandIn(tmp_path_factory.mktemp("standin"))
    folder = made.root / "tank" / "train"
    folder.mkdir(parents=True)
    for number in range(FILES):
        (folder / f"{number:02}").write_bytes(bytes([number]) * 1000)
    return made


def test_a_completion_that_never_comes_is_a_time_out_that_says_what_was_waited_for(
    standin: StandIn, handles: str
) -> None:
    said = run(
        standin,
        HANGING
        + """
    for way in (backend.read_many, backend.read_batch):
        hang(b"dfs_read:3=never,dfs_read:9=never")
        begin = time.monotonic()
        results = list(way(requests, timeout_s=4))
        assert time.monotonic() - begin < 15
        late = [result for result in results if result.error is not None]
        check([result for result in results if result.error is None])
        print(len(late), {type(result.error).__name__ for result in late})
        for result in late:
            assert repr(result.request.url) in str(result.error), result.error
            assert result.error.operation == "read"
            print(result.error)
        let_go()
        nothing_left()
        check(way(requests, timeout_s=20))
    """,
        HANDLES=handles,
    )
    assert said[0] == said[3] == "2 {'StoreTimeoutError'}"
    assert all(line.startswith("read 'daos://tank/train/") and "ETIMEDOUT" in line for line in said[1:3])


def test_reads_that_an_engine_answers_after_its_restart_are_right(standin: StandIn, handles: str) -> None:
    """As a real one does: nothing is said, and nothing comes, until it is back."""
    run(
        standin,
        HANGING
        + """
    for way in (backend.read_many, backend.read_batch):
        hang(b"dfs_read:5+=never")
        threading.Thread(target=lambda: (wait_for(lambda: lib.standin_count(b"reads") > 3), let_go())).start()
        check(way(requests, timeout_s=None))
        nothing_left()
    """,
        HANDLES=handles,
    )


@pytest.mark.parametrize("way", ["read_many", "read_batch", "read_files", "read"])
def test_ctrl_c_is_heard_while_a_read_never_comes(standin: StandIn, handles: str, way: str) -> None:
    said = run(
        standin,
        HANGING
        + f"""
    hang(b"dfs_read:*=never")
    urls = [request.url for request in requests]
    ways = {{
        "read_many": lambda: list(backend.read_many(requests, timeout_s=None)),
        "read_batch": lambda: backend.read_batch(requests, timeout_s=None),
        "read_files": lambda: backend.read_files(urls, [1000] * 20, timeout_s=None),
        "read": lambda: backend.read(urls[0]),
    }}
    rung = []

    def ring():
        wait_for(lambda: lib.standin_count(b"reads") > 0)
        time.sleep(0.2)
        rung.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=ring).start()
    try:
        ways[{way!r}]()
    except KeyboardInterrupt:
        print(time.monotonic() - rung[0])
    let_go()
    nothing_left()
    check(backend.read_batch(requests))
    """,
        HANDLES=handles,
    )
    assert float(said[0]) < 0.1 + 1.0  # 100 ms are promised; a busy machine gets 1 s more


def test_other_threads_run_while_reads_do_not_come(standin: StandIn, handles: str) -> None:
    said = run(
        standin,
        HANGING
        + """
    hang(b"dfs_read:*=never")
    counted = 0

    def count():
        global counted
        wait_for(lambda: lib.standin_count(b"reads") > 0)
        for _ in range(1000):
            counted += 1
            time.sleep(0)
        let_go()  # were the lock held, nobody would come here

    threading.Thread(target=count).start()
    check(backend.read_batch(requests, timeout_s=None))
    print(counted)
    nothing_left()
    """,
        HANDLES=handles,
    )
    assert said == ["1000"]


def test_what_was_asked_for_comes_while_nobody_takes_it(standin: StandIn, handles: str) -> None:
    """Results are there when the reader comes back from what it did with the first."""
    run(
        standin,
        HANGING
        + """
    hang(b"dfs_read:5+=never")
    reads = backend.read_many(requests, timeout_s=None, ordered=False)
    first = next(reads)
    wait_for(lambda: lib.standin_count(b"reads") > 0)
    let_go()
    wait_for(lambda: not lib.standin_count(b"reads"))
    check([first, *reads])
    nothing_left()
    """,
        HANDLES=handles,
    )


def test_one_file_that_is_not_known_is_read_among_those_that_are(standin: StandIn) -> None:
    """Once, by path; from then on it is known too."""
    said = run(
        standin,
        HANGING
        + """
    known = [request for request in requests if request.url[-2:] != "07"]
    assert len(list(backend.read_many(known, handles=kept))) == 19
    for _ in range(3):
        lib.standin_reset()
        check(backend.read_many(requests * 5, handles=kept, max_in_flight=10))
        print(lib.standin_count(b"dfs_lookup_rel"))
    nothing_left()
    """,
        HANDLES="",
    )
    assert 1 <= int(said[0]) <= 5
    assert said[1:] == ["0", "0"]


@pytest.mark.parametrize("way", ["closed", "dropped", "left"])
def test_a_program_ends_while_reads_never_come(standin: StandIn, handles: str, way: str) -> None:
    """Within the time that ``run`` gives it."""
    said = run(
        standin,
        HANGING
        + f"""
    hang(b"dfs_read:*=never")
    reads = backend.read_many(requests, timeout_s=0.2)
    print(type(next(reads).error).__name__)
    if {way!r} == "closed":
        reads.close()
    elif {way!r} == "dropped":
        del reads
    print(lib.standin_count(b"reads") > 0)
    """,
        HANDLES=handles,
    )
    assert said == ["StoreTimeoutError", "True"]


def test_ctrl_c_is_heard_while_no_engine_answers(standin: StandIn) -> None:
    """Which DAOS says after ten seconds, and here after three; whoever asks then is told."""
    said = run(
        standin,
        """
    import signal, threading, time

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for call in (lambda: backend.read(url + "00"), lambda: list(backend.list(url))):
        rung = []

        def ring():
            rung.append(time.monotonic())
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        threading.Timer(0.3, ring).start()
        try:
            call()
        except KeyboardInterrupt:
            print(time.monotonic() - rung[0])
    say(lambda: backend.read(url + "00"))
    lib = ctypes.CDLL(os.path.join(os.environ["DATAPIPES_LIBDFS_DIR"], "libdaos.so.2"))
    lib.standin_set(b"STANDIN_ENGINE", b"")
    print(len(backend.read(url + "00")))
    """,
        STANDIN_ENGINE="down",
        STANDIN_ENGINE_US="3000000",
    )
    assert len(said) == 4
    assert all(float(word) < 0.1 + 1.0 for word in said[:2])
    assert said[2].startswith("StoreTimeoutError |")
    assert said[3] == "1000"
