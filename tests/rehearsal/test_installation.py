"""A demo empties and locks its own directory only, and uses no external system."""

import socket
from pathlib import Path

import pytest

from rehearsal.installation import CannotPrepare, prepare_installation


@pytest.fixture
def ports(unused_tcp_port_factory: object) -> tuple[int, int]:
    return unused_tcp_port_factory(), unused_tcp_port_factory()  # type: ignore[operator]


def test_demo_starts_in_an_emptied_directory(tmp_path: Path, ports: tuple[int, int]) -> None:
    with prepare_installation(tmp_path, *ports) as installation:
        (installation.directory / "old.db").write_text("old")
        (installation.directory / "mail").mkdir()
        (installation.directory / "mail" / "1.eml").write_text("old")

    with prepare_installation(tmp_path, *ports) as installation:
        assert [file.name for file in installation.directory.iterdir()] == [".ataa-demo"]


def test_directory_not_created_by_a_demo_is_not_emptied(tmp_path: Path, ports: tuple[int, int]) -> None:
    (tmp_path / "demo").mkdir()
    precious = tmp_path / "demo" / "thesis.txt"
    precious.write_text("years of work")

    with (
        pytest.raises(CannotPrepare, match="was not created by a demo"),
        prepare_installation(tmp_path, *ports),
    ):
        pass

    assert precious.read_text() == "years of work"


def test_emptying_does_not_follow_symbolic_links(tmp_path: Path, ports: tuple[int, int]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    with prepare_installation(tmp_path / "data", *ports) as installation:
        (installation.directory / "link").symlink_to(outside)

    with prepare_installation(tmp_path / "data", *ports):
        assert (outside / "kept.txt").read_text() == "kept"


def test_second_demo_is_refused_with_the_first_ones_pid(tmp_path: Path, ports: tuple[int, int]) -> None:
    import os

    with (
        prepare_installation(tmp_path, *ports),
        pytest.raises(CannotPrepare, match=rf"another demo \(process {os.getpid()}\) is running here"),
        prepare_installation(tmp_path, *ports),
    ):
        pass


def test_port_in_use_is_named_with_its_setting(tmp_path: Path, ports: tuple[int, int]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[1]))
        taken.listen()
        expected = f"port {ports[1]} is in use; choose another with ATAA_SANDBOX_PORT"
        with pytest.raises(CannotPrepare, match=expected), prepare_installation(tmp_path, *ports):
            pass


def test_unwritable_data_directory_is_named(tmp_path: Path, ports: tuple[int, int]) -> None:
    (tmp_path / "file").write_text("in the way")

    with (
        pytest.raises(CannotPrepare, match="cannot be written"),
        prepare_installation(tmp_path / "file", *ports),
    ):
        pass


def test_demo_environment_has_no_settings_of_external_systems(tmp_path: Path, ports: tuple[int, int]) -> None:
    own = {
        "PATH": "/bin",
        "ATAA_LOG_LEVEL": "debug",
        "ATAA_ADMIN_KEY": "ak_admin_real",
        "ATAA_STRIPE_API_KEY": "sk_live_real",
        "ATAA_DATABASE_URL_PLEDGES": "postgresql://real",
        "ATAA_SMTP_URL": "smtp://real",
        "ATAA_KAFKA_BOOTSTRAP": "real:9092",
    }
    with prepare_installation(tmp_path, *ports) as installation:
        environment = installation.embedded_environment(own)

    assert not [value for value in environment.values() if "real" in value]
    assert (environment["PATH"], environment["ATAA_LOG_LEVEL"]) == ("/bin", "debug")
    assert environment["ATAA_STRIPE_API_BASE"] == f"http://127.0.0.1:{ports[1]}"
    assert environment["ATAA_STRIPE_API_KEY"].startswith("sk_test_")
    assert environment["ATAA_DATA_DIR"] == str(tmp_path / "demo")


def test_no_secret_is_on_a_command_line(tmp_path: Path, ports: tuple[int, int]) -> None:
    with prepare_installation(tmp_path, *ports) as installation:
        command_line = " ".join(installation.sandbox_arguments())
        assert installation.webhook_secret not in command_line
        assert installation.stripe_key not in command_line
        environment = installation.sandbox_environment(
            {"PATH": "/bin", "ATAA_STRIPE_API_KEY": "sk_live_the_users"}
        )
        assert environment == {
            "PATH": "/bin",
            "ATAA_STRIPE_API_KEY": installation.stripe_key,
            "ATAA_STRIPE_WEBHOOK_SECRETS": installation.webhook_secret,
        }
