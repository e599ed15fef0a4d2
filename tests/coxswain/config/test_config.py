"""Configuration: precedence, presets, and every way in which a file can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from coxswain.config import KEYS, Config, ConfigProblems, check, load, render
from coxswain.errors import InvalidInput, LoosePermissions


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def _read(text: str | bytes, **environ: str) -> Config:
        return check(text.encode() if isinstance(text, str) else text, tmp_path / "cox.yaml", environ)

    return _read


@pytest.fixture
def wrong(read: Any) -> Any:
    """The problems of a text, which must have some."""

    def _wrong(text: str, **environ: str) -> list[str]:
        with pytest.raises(ConfigProblems) as caught:
            read(text, **environ)
        return caught.value.problems

    return _wrong


P = "posture: personal\n"


def test_a_preset_fills_what_the_file_leaves_out(read: Any) -> None:
    assert read("posture: personal")["retention.audit_days"] == 30
    assert read("posture: enterprise")["retention.audit_days"] == 365
    assert read("posture: enterprise")["protocols.xray"] is True
    assert read(P)["fleet.vpn_subnet"] == "10.86.0.0/16"


def test_file_beats_preset_and_environment_beats_file(read: Any) -> None:
    text = P + "retention: {audit_days: 5}\n"
    assert read(text)["retention.audit_days"] == 5
    assert read(text, COX_RETENTION__AUDIT_DAYS="7")["retention.audit_days"] == 7
    assert read(text, COX_POSTURE="enterprise")["retention.metrics_days"] == 90


def test_environment_values_have_the_type_of_their_key(read: Any) -> None:
    config = read(
        P,
        COX_FLEET__REGIONS=" fra, ams ,,",
        COX_PROTOCOLS__XRAY="Yes",
        COX_CONTROL_LOCATION__LAT="52",
        COX_NODE__SSH_PORT="2222",
        COX_LOG__LEVEL="debug",
    )
    assert config["fleet.regions"] == ["fra", "ams"]
    assert config["protocols.xray"] is True
    assert config["control_location.lat"] == 52.0 and isinstance(config["control_location.lat"], float)
    assert config["node.ssh_port"] == 2222
    assert config["log.level"] == "debug"


def test_relative_paths_start_at_the_file(read: Any, tmp_path: Path) -> None:
    config = read(P + "state_dir: here/state\ngeoip_db: city.mmdb\nca: {key_file: /etc/cox/key}\n")
    assert config.state_dir == tmp_path / "here/state"
    assert config.socket == tmp_path / "here/state/control.sock"
    assert config.database == tmp_path / "here/state/app.db"
    assert config["geoip_db"] == str(tmp_path / "city.mmdb")
    assert config.key_file == Path("/etc/cox/key")
    assert config["siem.tls_key"] == "", "an unset path stays unset"
    assert read(P).key_file == tmp_path / "state/ca.key"


def test_all_problems_are_told_at_once_each_with_its_line(wrong: Any) -> None:
    problems = wrong("posture: persnal\nlog:\n  level: loud\nnode:\n  ssh_port: 70000\nfleet:\n  vpn_subnett: x\n")
    assert len(problems) == 4
    text = "\n".join(problems)
    assert "posture (line 1): 'persnal' is not accepted; it takes personal or enterprise" in text
    assert "log.level (line 3): 'loud' is not accepted; it takes debug or info or warn or error" in text
    assert "node.ssh_port (line 5): 70000 is not accepted; it takes 1 to 65535" in text
    assert "fleet.vpn_subnett (line 7): unknown key; did you mean fleet.vpn_subnet?" in text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sate_dir: x", "sate_dir (line 2): unknown key; did you mean state_dir?"),
        ("ui: {level: debug}", "did you mean log.level?"),
        ("log: debug", "log (line 2): is a section"),
        ("log: {level: {deep: 1}}", "log.level.deep (line 2): unknown key"),
        ("log: {level: warn}\nlog: {level: error}", "log (line 3): stands in line 2 already"),
        ("state_dir: a\nstate_dir: b", "state_dir (line 3): stands in line 2 already"),
        ("? [a, b]\n: c", "a key has to be a plain word"),
        ("log: {level: }", "has no value"),
        ("admin: {password: 12345}", "******** is not text; put it in quotes"),
        ("admin: {password: 2024-99-99}", "admin.password (line 2): the value cannot be read; put it in quotes"),
        ("ui: {listen: 8443}", "is not text"),
        ("ui: {listen: '127.0.0.1'}", "it takes host:port or :port"),
        ("ui: {listen: '::1:80'}", "it takes host:port or :port"),
        ("ui: {listen: '1.2.3:80'}", "it takes host:port or :port"),
        ("ui: {listen: 'a b:80'}", "it takes host:port or :port"),
        ("ui: {listen: ':0'}", "it takes host:port or :port"),
        ("siem: {listen: '0.0.0.0'}", "empty for off"),
        ("fleet: {vpn_subnet: 10.86.0.1/16}", "an IPv4 network of at least 8 addresses"),
        ("fleet: {vpn_subnet: 10.86.0.0/30}", "an IPv4 network of at least 8 addresses"),
        ("fleet: {vpn_subnet: 'fd00::/64'}", "an IPv4 network of at least 8 addresses"),
        ("fleet: {reconcile_interval: -1}", "it takes 1 to 86400"),
        ("fleet: {reconcile_interval: 45.5}", "is not a whole number"),
        ("fleet: {reconcile_interval: true}", "is not a whole number"),
        ("fleet: {regions: fra}", "is not a list of texts"),
        ("fleet: {regions: [1]}", "is not a list of texts"),
        ("fleet: {endpoint_port_min: 70000}", "0 to 65535"),
        ("protocols: {xray: 'yes'}", "is not true or false"),
        ("retention: {audit_days: -1}", "0: keep for ever"),
        ("node: {node_binary_url: 'http://h/x'}", "an https URL"),
        ("node: {node_binary_url: 'https://h:99999/x'}", "an https URL"),
        ("node: {node_binary_url: 'https://[::1/x'}", "an https URL"),
        ("database: {dsn: 'mysql://h/x'}", "a postgres:// URL"),
        ("backend: postgres", "database.dsn is empty"),
        ("backend: mysql", "sqlite, postgres"),
        ("backend: sqlite\ndatabase: {dsn: 'postgres://h/x'}", "backend is sqlite, but"),
        ("relay: {remote: true, embedded: false}", "needs relay.embedded"),
        ("relay: {remote_endpoints: [h]}", "a list of host:port"),
        ("relay: {remote_endpoints: ['h:99999']}", "a list of host:port"),
        ("siem: {tls_cert: x}", "siem.tls_key is missing"),
        ("siem: {tls_key: x}", "siem.tls_cert is missing"),
        ("control_location: {lat: .nan}", "-90 to 90"),
        ("control_location: {lat: north}", "is not a number"),
        ("ui: {listen: '0.0.0.0:8443'}", "it takes a loopback address"),
        ("ui: {listen: ':8443'}", "it takes a loopback address"),
        ("ui: {listen: '[2001:db8::1]:8443'}", "it takes a loopback address"),
        ("ui: {allowed_hosts: ['a b']}", "a list of host"),
        ("ui: {allowed_origins: [cox.example]}", "a list of http(s)://"),
        ("ui: {allowed_origins: ['https://cox.example/path']}", "a list of http(s)://"),
        ("siem: {listen: '0.0.0.0:8444'}", "would not be encrypted"),
        ("admin: {password_hash: plain}", "******** is not accepted; it takes $argon2id$"),
        (
            "admin: {password: a, password_hash: '$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA'}",
            "keep the hash",
        ),
        ("ca: {key_source: tpm}", "file or credential or passphrase"),
        ("state_dir: ''", "it takes a path"),
        ('state_dir: "a\\0b"', "holds control characters"),
        (f"control: {{socket: /{'x' * 120}}}", "at most 107"),
        (f"state_dir: /{'x' * 120}", "set control.socket to a shorter one"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_do(wrong: Any, text: str, complaint: str) -> None:
    problems = wrong(P + text)
    assert len(problems) == 1, problems
    assert complaint in problems[0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- a", "no mapping"),
        ("just words", "no mapping"),
        ("a: [", "line 3: this is not YAML"),
        ("a: b: c", "line 2: this is not YAML"),
        ("a: &x 1\nb: *x", "line 2: anchors and aliases"),
        ("a: &a {b: *a}", "anchors and aliases"),
        ("a: !!python/object/apply:os.system [id]", "tags (!)"),
        ("a: " + "[" * 5000, "levels deep"),
        ("a: " + "{x: " * 5000, "levels deep"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(read: Any, text: str, complaint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read("# first line\n" + text)
    assert complaint in str(caught.value)


def test_bytes_that_are_no_text_are_refused(read: Any) -> None:
    for raw in (b"\xff\xfe\xff", b"a: \xc3\x28", b"a: \x00", b"a: \x1b"):
        with pytest.raises(InvalidInput, match="this is not YAML"):
            read(raw)


def test_an_empty_section_and_an_empty_file_are_fine(read: Any) -> None:
    assert read(P + "log:\n  # level: warn\nui: {}\n")["log.level"] == "info"
    assert read("", COX_POSTURE="personal")["posture"] == "personal"


def test_unknown_variables_are_problems_and_foreign_ones_are_not(wrong: Any, read: Any) -> None:
    assert wrong(P, COX_LOGLEVEL="x") == ["loglevel (environment COX_LOGLEVEL): unknown key; did you mean log.level?"]
    assert "is a section" in wrong(P, COX_LOG="x")[0]
    assert "environment COX_NODE__SSH_PORT" in wrong(P, COX_NODE__SSH_PORT="x")[0]
    read(P, COX_CONFIG="elsewhere", COX_CA_PASSPHRASE="x", PATH="/bin")


def test_secrets_are_never_shown(read: Any, wrong: Any) -> None:
    config = read(P + "database: {dsn: 'postgres://u:hunter2@h/x'}\nadmin: {password: hunter2}\n")
    assert "hunter2" not in repr(config)
    assert "hunter2" not in repr(config.shown())
    assert config.shown()["admin.password"] == "********"
    assert config.shown()["siem.listen"] == ""
    assert "hunter2" not in repr(wrong(P + "database: {dsn: 'mysql://u:hunter2@h/x'}\nadmin: {password: [hunter2]}\n"))


def test_who_knows_the_url_of_a_webhook_can_write_there(read: Any, wrong: Any) -> None:
    """Those of chats hold their password in the path."""
    file = "analytics: {webhook_url: 'https://hooks.example.org/services/T0/hunter2'}\n"
    config = read(P + file)
    assert "hunter2" not in repr(config.shown()) and config.shown()["analytics.webhook_url"] == "********"
    assert "hunter2" not in repr(wrong(P + file.replace("https", "ftp")))
    assert read(P).shown()["analytics.webhook_url"] == "", "whether there is one is no secret"


def test_a_file_with_a_secret_must_be_private(tmp_path: Path) -> None:
    path = tmp_path / "cox.yaml"
    path.write_text(P + "admin: {password: hunter2}\n")
    path.chmod(0o640)
    with pytest.raises(LoosePermissions, match=r"admin\.password.*0640") as caught:
        load(path, {})
    assert caught.value.remedy == f"chmod 600 {path}"
    path.chmod(0o600)
    assert load(path, {})["admin.password"] == "hunter2"
    path.write_text(P)
    path.chmod(0o644)
    load(path, {"COX_ADMIN__PASSWORD": "from outside"})


def test_a_file_that_is_absent_a_directory_or_huge(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file") as caught:
        load(tmp_path / "cox.yaml", {})
    assert "cox init" in caught.value.remedy
    with pytest.raises(InvalidInput, match="Is a directory"):
        load(tmp_path, {})
    (tmp_path / "big").write_text("#" * 300_000)
    with pytest.raises(InvalidInput, match="larger than"):
        load(tmp_path / "big", {})


@pytest.mark.parametrize("posture", ["personal", "enterprise"])
def test_what_init_writes_is_read_back(read: Any, posture: str) -> None:
    strange = 'a "b" \\ c: #d 🛶 é'
    text = render(posture, {"state_dir": strange, "ca.key_source": "passphrase"})
    config = read(text)
    assert config.state_dir.name == strange
    assert config["ca.key_source"] == "passphrase"
    assert not [key.name for key in KEYS if key.idle and key.name.rpartition(".")[2] + ":" in text]  # config check warns
    preset = read(f"posture: {posture}\n")
    changed = {"state_dir", "ca.key_source"}
    assert {k.name: config[k.name] for k in KEYS if k.name not in changed} == {
        k.name: preset[k.name] for k in KEYS if k.name not in changed
    }
    written = yaml.safe_load(text)
    assert written["posture"] == posture and written["retention"]["audit_days"] in (30, 365)


def test_every_key_is_described_and_its_own_default_is_sound() -> None:
    for key in KEYS:
        assert key.help
        for posture in ("personal", "enterprise"):
            assert key.check(key.preset(posture)) or key.name == "posture", key.name


def test_zero_in_existing_files_means_the_default(read: Any) -> None:
    config = read(P + "fleet: {reconcile_interval: 0}\nanalytics: {interval_seconds: 0, window_hours: 0}\n")
    assert (config["fleet.reconcile_interval"], config["analytics.interval_seconds"]) == (45, 60)
    assert config["analytics.window_hours"] == 24


@pytest.mark.parametrize("more", ["behind_tls_proxy", "allow_remote"])
def test_a_listen_address_beyond_loopback_takes_a_word(read: Any, more: str) -> None:
    text = f"ui: {{listen: '0.0.0.0:8443', {more}: true}}\n"
    assert read(P + text)["ui.listen"] == "0.0.0.0:8443"
    assert bool(read(P + text).warnings()) is (more == "allow_remote")
    for listen in ("127.9.0.1:1", "[::1]:8443", "localhost:8443"):
        assert read(P + f"ui: {{listen: '{listen}'}}")["ui.listen"] == listen


def test_a_list_in_the_environment_may_be_a_yaml_list(read: Any, wrong: Any) -> None:
    assert read(P, COX_FLEET__REGIONS='[fra, "a, b"]')["fleet.regions"] == ["fra", "a, b"]
    assert read(P, COX_FLEET__REGIONS="[]")["fleet.regions"] == []
    for text in ("[fra", "[fra]\nx: 1", "[1]", "[{a: b}]", "[*x]", "[\ud800]"):
        assert len(wrong(P, COX_FLEET__REGIONS=text)) == 1, text


def test_every_value_knows_where_it_comes_from(read: Any) -> None:
    config = read(P + "log: {level: warn}\n", COX_NODE__SSH_PORT="2222")
    origins = {key.name: config.origin(key.name) for key in KEYS}
    assert (origins["log.level"].kind, origins["log.level"].where) == ("file", "line 2")
    assert origins["node.ssh_port"].where == "environment COX_NODE__SSH_PORT"
    assert (origins["retention.audit_days"].kind, origins["retention.audit_days"].where) == ("preset", "preset personal")
    assert origins["state_dir"].kind == "default"


def test_what_has_no_effect_is_accepted_and_said_wherever_it_is_set(read: Any) -> None:
    """Endpoint ports and a reserve of nodes: fleet-model.md 12 E 33, accounts-profiles.md 10.1, 9."""
    idle = {key.name: key.idle for key in KEYS if key.idle}
    assert {name.removeprefix("fleet.") for name in idle} == {"endpoint_port_min", "endpoint_port_max", "idle_nodes"}
    for name, why in idle.items():
        value = "true" if name == "fleet.idle_nodes" else "2000"
        (warning,) = read(f"{P}fleet:\n  {name.partition('.')[2]}: {value}\n").warnings()
        assert warning == f"{name} (line 3): has no effect: {why}"
        variable = f"COX_{name.upper().replace('.', '__')}"
        (warning,) = read(P, **{variable: value}).warnings()
        assert warning.startswith(f"{name} (environment {variable}): ")
    assert read("posture: enterprise\n").warnings() == [], "nobody is told of what a preset says"


def test_what_could_be_safer_is_a_warning(read: Any) -> None:
    assert read(P).warnings() == [], "nobody is warned of presets"
    text = P + "admin: {password: hunter2}\ndatabase: {dsn: 'postgres://u:hunter2@h/x'}\n"
    warnings = read(text).warnings()
    assert read(P + "node: {binary_path: absent}\n").warnings()[0].startswith("node.binary_path (line 2): there is no /")
    assert any("admin.password_hash" in w for w in warnings) and any(w.startswith("database.dsn") for w in warnings)
    assert "hunter2" not in repr(warnings)
