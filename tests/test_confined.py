"""The server where it may write nothing but its data directory, as in a container with a read-only root."""

from .process import running

#: Makes every file system read-only but that of the directory $0, and runs "$@" there without any capability.
CONFINE = """
mount --bind "$0" "$0"
findmnt --raw --noheadings --output TARGET | while read -r target; do
    case "$target" in
        "$0" | /dev | /dev/* | /proc | /proc/* | /sys | /sys/*) ;;
        *) mount -o remount,bind,ro "$target" ;;
    esac
done
if touch "$0.outside"; then exit 9; fi
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
"""


def test_only_the_data_directory_needs_to_be_written_to(tmp_path):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    confined = ("unshare", "--map-root-user", "--mount", "sh", "-uc", CONFINE, str(data))
    given = ("--port=0", f"--data_dir={data}", "--ack=stored")
    with running(*given, log=tmp_path / "log", environ={"HOME": "/nowhere"}, under=confined) as server:
        record_id = server.post("/add-job", b'{"n":1}')["id"]
        assert server.stop() == 0
    with running(*given, log=tmp_path / "log", under=confined) as server:
        assert [(record["_id"], record["data"]) for record in server.get("/logs")] == [(record_id, {"n": 1})]
        assert server.stop() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"data", "log"}
    assert "Read-only file system" in (tmp_path / "log").read_text()
