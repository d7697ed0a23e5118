"""Settings: where they come from, and the line that each mistake gets."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from consumer.environment import read_settings, service_variables
from consumer.messages.local_time import Hours
from consumer.settings import Settings, WrongSettings

BROKER = "amqp://calls:hush-hush@rabbit:5672/vhost"
PORTAL = "https://portal.example/rest/1/s3cr3t-webhook/"


def mistakes(**environment: str) -> list[str]:
    """Read settings that are wrong, and return what is said of them."""
    with pytest.raises(WrongSettings) as caught:
        read_settings(environment)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    return caught.value.mistakes


# --- where they come from

FIELDS: dict[str, tuple[str, object]] = {
    "rabbitmq_url": (f"{BROKER}, {BROKER}", SecretStr(f"{BROKER},{BROKER}")),
    "bitrix24_url": (PORTAL, SecretStr(PORTAL)),
    "allow_http": ("true", True),
    "default_line": ("reg151083", "reg151083"),
    "default_voice": ("ruinternalfemale", "ruinternalfemale"),
    "default_region": ("DE", "DE"),
    "rate_per_s": ("5", 5.0),
    "burst": ("40", 40),
    "operating_limit_s": ("420", 420.0),
    "concurrency": ("32", 32),
    "timeout_s": ("70.5", 70.5),
    "retry_delays_s": ("1, 2,600", (1, 2, 600)),
    "calling_hours": ("22:00 - 06:30", Hours(22 * 3600, 30 * 3600 + 1800)),
    "calling_days": ("mon, Wed,sat-sun", frozenset({0, 2, 5, 6})),
    "time_zone": ("Asia/Kolkata", "Asia/Kolkata"),
    "countries": ("DE, AT", frozenset({"DE", "AT"})),
    "max_per_number_per_day": ("3", 3),
    "exchange": ("phone", "phone"),
    "queue": ("reminders", "reminders"),
    "declare": ("false", False),
    "pause_after": ("3", 3),
    "http_port": ("0", 0),
    "ledger_url": ("sqlite:////var/lib/calls.db", SecretStr("sqlite:////var/lib/calls.db")),
    "when_unsure": ("retry", "retry"),
    "history_lag_s": ("0", 0.0),
    "follow_up": ("false", False),
    "ledger_retention_days": ("30", 30),
    "drain_s": ("90", 90.0),
    "log_level": ("debug", "debug"),
}


OAUTH: dict[str, tuple[str, object]] = {
    "bitrix24_url": ("https://portal.example/rest", SecretStr("https://portal.example/rest/")),
    "oauth_client_id": ("local.1a2b", "local.1a2b"),
    "oauth_client_secret": ("s3cr3t-client", SecretStr("s3cr3t-client")),
    "oauth_server_url": ('"https://oauth.example/"', "https://oauth.example/"),
}
"""Settings that are of use together only."""


def test_every_setting_is_tried_here() -> None:
    assert set(FIELDS) | set(OAUTH) == set(Settings.model_fields)


def test_oauth_takes_the_place_of_the_webhook() -> None:
    settings = read_settings({f"CALLS_{name.upper()}": text for name, (text, _) in OAUTH.items()})

    assert settings == Settings(**{name: value for name, (_, value) in OAUTH.items()})
    assert "s3cr3t" not in repr(settings)


def test_the_client_secret_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cr3t-client\n")
    settings = read_settings(
        {
            "CALLS_BITRIX24_URL": "https://portal.example/rest/",
            "CALLS_OAUTH_CLIENT_ID": "local.1a2b",
            "CALLS_OAUTH_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
        }
    )

    assert settings.oauth_client_secret == SecretStr("s3cr3t-client")


BARE = "https://portal.example/rest/"
WAYS_IN: dict[str, tuple[dict[str, str], list[str]]] = {
    "both": (
        {"BITRIX24_URL": PORTAL, "OAUTH_CLIENT_ID": "a", "OAUTH_CLIENT_SECRET": "s3cr3t"},
        ["CALLS_BITRIX24_URL: is a webhook, and CALLS_OAUTH_CLIENT_ID is set too: keep one; with"],
    ),
    "neither": ({"BITRIX24_URL": BARE}, ["CALLS_BITRIX24_URL: holds no webhook: write https://"]),
    "an id alone": (
        {"BITRIX24_URL": BARE, "OAUTH_CLIENT_ID": "a"},
        ["CALLS_OAUTH_CLIENT_SECRET: is not set, and CALLS_OAUTH_CLIENT_ID is"],
    ),
    "a secret alone": (
        {"BITRIX24_URL": BARE, "OAUTH_CLIENT_SECRET": "s3cr3t"},
        ["CALLS_OAUTH_CLIENT_ID: is not set, and CALLS_OAUTH_CLIENT_SECRET is"],
    ),
    "a portal alone": (
        {
            "BITRIX24_URL": "https://portal.example",
            "OAUTH_CLIENT_ID": "a",
            "OAUTH_CLIENT_SECRET": "s3cr3t",
        },
        ["CALLS_BITRIX24_URL: ends too early: with OAuth write https://portal/rest/"],
    ),
    "a server alone": (
        {"BITRIX24_URL": PORTAL, "OAUTH_SERVER_URL": "https://oauth.example/"},
        ["CALLS_OAUTH_SERVER_URL: is for OAuth"],
    ),
    "a server that is none": (
        {
            "BITRIX24_URL": BARE,
            "OAUTH_CLIENT_ID": "a",
            "OAUTH_CLIENT_SECRET": "s3cr3t",
            "OAUTH_SERVER_URL": "oauth.example",
        },
        ["CALLS_OAUTH_SERVER_URL: is no address of a server: write https://server/"],
    ),
    "a server without encryption": (
        {
            "BITRIX24_URL": BARE,
            "OAUTH_CLIENT_ID": "a",
            "OAUTH_CLIENT_SECRET": "s3cr3t",
            "OAUTH_SERVER_URL": "http://oauth.example/",
        },
        ["CALLS_OAUTH_SERVER_URL: would send the secret unencrypted: write https"],
    ),
}


@pytest.mark.parametrize(("given", "begin"), WAYS_IN.values(), ids=WAYS_IN)
def test_there_is_one_way_into_the_portal_and_all_of_it(
    given: dict[str, str], begin: list[str]
) -> None:
    told = mistakes(**{f"CALLS_{name}": value for name, value in given.items()})

    assert len(told) == len(begin), told
    assert all(line.startswith(words) for line, words in zip(told, begin, strict=True)), told
    assert "s3cr3t" not in "".join(told)


def test_a_mock_without_a_webhook_in_its_address_is_fine() -> None:
    url = "http://127.0.0.1:8024/rest/"

    assert read_settings({"CALLS_BITRIX24_URL": url}).needed("bitrix24_url") == url


@pytest.mark.parametrize("field", FIELDS)
def test_a_setting_comes_from_the_environment(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = FIELDS[field]
    assert getattr(read_settings(), field) != value
    monkeypatch.setenv(f"CALLS_{field.upper()}", text)

    assert getattr(read_settings(), field) == value


def test_all_settings_together_are_a_configuration() -> None:
    settings = read_settings({f"CALLS_{name.upper()}": text for name, (text, _) in FIELDS.items()})

    assert settings == Settings(**{name: value for name, (_, value) in FIELDS.items()})


def test_without_any_setting_the_defaults_are_those_of_the_contract() -> None:
    settings = read_settings({})

    assert settings == Settings()
    assert settings.rabbitmq_url is settings.bitrix24_url is None
    assert settings.retry_delays_s == (5, 30, 300, 1800, 3600)
    assert (settings.rate_per_s, settings.burst, settings.concurrency) == (2.0, 20, 10)
    assert (settings.timeout_s, settings.history_lag_s) == (65.0, 300.0)
    assert (settings.exchange, settings.queue) == ("calls", "call.requested")
    assert settings.ledger_url.get_secret_value() == "sqlite:///call-ledger.db"
    assert settings.when_unsure == "dead-letter"


def test_the_brokers_of_a_list_are_separated_by_commas_alone() -> None:
    settings = read_settings({"CALLS_RABBITMQ_URL": f" {BROKER} ,\n{BROKER} "})

    assert settings.needed("rabbitmq_url") == f"{BROKER},{BROKER}"


@pytest.mark.parametrize("field", FIELDS)
def test_an_empty_setting_is_none(field: str) -> None:
    assert read_settings({f"CALLS_{field.upper()}": ""}) == Settings()


@pytest.mark.parametrize("field", ["default_line", "default_voice"])
def test_a_blank_setting_is_none(field: str) -> None:
    assert read_settings({f"CALLS_{field.upper()}": "  "}) == Settings()


def test_blanks_around_a_setting_are_no_part_of_it() -> None:
    assert read_settings({"CALLS_DEFAULT_LINE": " reg1\n"}).default_line == "reg1"


def test_what_is_no_setting_of_ours_is_nobodys_business() -> None:
    assert read_settings({"PATH": "/bin", "CALLSIGN": "x", "calls_burst": "7"}) == Settings()


def test_settings_do_not_change() -> None:
    settings = read_settings({})

    with pytest.raises(ValidationError):
        settings.burst = 7  # type: ignore[misc]


# --- .env


def test_a_setting_comes_from_a_file_in_this_folder(tmp_path: Path) -> None:
    tmp_path.joinpath(".env").write_text(
        "# ours\nexport CALLS_BURST=7\nCALLS_DEFAULT_LINE='reg 1'\nCALLS_QUEUE\nOTHER=1\n"
    )

    assert read_settings({}) == Settings(burst=7, default_line="reg 1")


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    tmp_path.joinpath(".env").write_text("CALLS_BURST=7\nCALLS_QUEUE=reminders\n")

    settings = read_settings({"CALLS_BURST": "8"})

    assert (settings.burst, settings.queue) == (8, "reminders")


def test_an_empty_variable_takes_back_what_the_file_says(tmp_path: Path) -> None:
    tmp_path.joinpath(".env").write_text("CALLS_BURST=7\n")

    assert read_settings({"CALLS_BURST": ""}) == Settings()


def test_a_mistake_in_the_file_is_a_mistake(tmp_path: Path) -> None:
    tmp_path.joinpath(".env").write_text("CALLS_BURSTS=7\n")

    assert mistakes() == ["CALLS_BURSTS: there is no such setting: did you mean CALLS_BURST?"]


DOTENV: dict[str, bytes] = {
    "with a byte order mark": b"\xef\xbb\xbfCALLS_BURST=7\r\n",
    "in UTF-16": "# тест\nCALLS_BURST=7\n".encode("utf-16"),
}


@pytest.mark.parametrize("content", DOTENV.values(), ids=DOTENV)
def test_the_file_is_read_as_editors_leave_it(content: bytes, tmp_path: Path) -> None:
    tmp_path.joinpath(".env").write_bytes(content)

    assert read_settings({}) == Settings(burst=7)


UNREADABLE_DOTENV: dict[str, tuple[bytes, str]] = {
    "another code page": (
        "# тест\nCALLS_BURST=7\n".encode("cp1251"),
        "it is not UTF-8 from byte 2 on: save it as UTF-8",
    ),
    "UTF-16 that does not say so": (
        "CALLS_BURST=7\n".encode("utf-16-le"),
        "it holds zero bytes, as UTF-16 does: save it as UTF-8",
    ),
    "UTF-32": (
        "CALLS_BURST=7\n".encode("utf-32"),
        "it holds zero bytes, as UTF-32 does: save it as UTF-8",
    ),
}


@pytest.mark.parametrize(("content", "why"), UNREADABLE_DOTENV.values(), ids=UNREADABLE_DOTENV)
def test_a_file_that_cannot_be_read_is_one_line(content: bytes, why: str, tmp_path: Path) -> None:
    tmp_path.joinpath(".env").write_bytes(content)

    assert mistakes() == [f".env: cannot be read: {why}"]


@pytest.mark.parametrize("line", ["CALLS_BURST='7", "CALLS_BURST: 7"])
def test_a_line_of_ours_that_would_be_left_out_is_named(line: str, tmp_path: Path) -> None:
    tmp_path.joinpath(".env").write_text(f"# CALLS_BURST\nOTHERS\n\n{line}\nCALLS_RATE_PER_S=1\n")

    assert mistakes() == [".env: line 4 cannot be read: write CALLS_NAME=value"]


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_hash_in_a_password_is_named_rather_than_taken_for_a_remark(
    quote: str, tmp_path: Path
) -> None:
    line = f"CALLS_RABBITMQ_URL={quote}amqp://calls:hush#hush@rabbit/{quote}\n"
    tmp_path.joinpath(".env").write_text(line)

    assert mistakes() == [f"CALLS_RABBITMQ_URL: {CUT_SHORT}"]


# --- what Kubernetes sets

CLUSTER = {
    "CALLS_SERVICE_HOST": "10.96.0.1",
    "CALLS_SERVICE_PORT": "8080",
    "CALLS_SERVICE_PORT_HTTP": "8080",
    "CALLS_PORT": "tcp://10.96.0.1:8080",
    "CALLS_PORT_8080_TCP": "tcp://10.96.0.1:8080",
    "CALLS_PORT_8080_TCP_PROTO": "tcp",
    "CALLS_PORT_8080_TCP_PORT": "8080",
    "CALLS_PORT_8080_TCP_ADDR": "10.96.0.1",
    "CALLS_WEB_API_SERVICE_HOST": "fd00::1",
    "CALLS_WEB_API_PORT": "tcp://[fd00::1]:443",
    "CALLS_DNS_PORT_53_UDP": "udp://[fd00::1]:53",
    "CALLS_HTTP_PORT": "tcp://10.96.0.2:80",  # of a service calls-http; a setting of ours, too
}


def test_the_variables_of_a_clusters_services_are_no_settings() -> None:
    assert read_settings(CLUSTER) == Settings()
    assert service_variables(CLUSTER) == list(CLUSTER)


ALIKE: dict[str, str] = {
    "CALLS_PORT": "8080",
    "CALLS_SERVICE_HOST": "rabbit.example",
    "CALLS_SERVICE_PORT": "http",
    "CALLS_HTTP_PORTS": "tcp://10.96.0.1:8080",
    "CALLS_HTTP_PORT": "tcp",
    "CALLS_PORT_8080_TCP_PROTO": "sometimes",
}


@pytest.mark.parametrize(("name", "value"), ALIKE.items(), ids=ALIKE)
def test_what_only_resembles_them_is_a_mistake(name: str, value: str) -> None:
    (line,) = mistakes(**{name: value})

    assert line.startswith(f"{name}: ")


# --- secrets in files


@pytest.mark.parametrize(("field", "secret"), [("rabbitmq_url", BROKER), ("bitrix24_url", PORTAL)])
def test_a_secret_may_be_in_a_file(field: str, secret: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{secret}\n")

    settings = read_settings({f"CALLS_{field.upper()}_FILE": str(file)})

    assert getattr(settings, field) == SecretStr(secret)


def test_a_secret_that_comes_twice_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(BROKER)

    assert mistakes(CALLS_RABBITMQ_URL=BROKER, CALLS_RABBITMQ_URL_FILE=str(file)) == [
        "CALLS_RABBITMQ_URL: is set, and CALLS_RABBITMQ_URL_FILE too: keep one"
    ]


SECRET_FILES: dict[str, bytes] = {
    "with a byte order mark": b"\xef\xbb\xbf" + PORTAL.encode(),
    "in UTF-16": f"{PORTAL}\r\n".encode("utf-16"),
    "in quotes": f'"{PORTAL}"\n'.encode(),
    "in a shell's quotes": f" '{PORTAL}' \n".encode(),
}


@pytest.mark.parametrize("content", SECRET_FILES.values(), ids=SECRET_FILES)
def test_a_secret_is_read_as_editors_and_shells_leave_it(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)

    settings = read_settings({"CALLS_BITRIX24_URL_FILE": str(file)})

    assert settings.needed("bitrix24_url") == PORTAL


def test_a_secret_in_quotes_is_read_from_the_environment_too() -> None:
    settings = read_settings({"CALLS_RABBITMQ_URL": f'"{BROKER}"'})

    assert settings.needed("rabbitmq_url") == BROKER


UNREADABLE: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "no such file or directory"),
    "another code page": (
        "# секрет".encode("cp1251"),
        "it is not UTF-8 from byte 2 on: save it as UTF-8",
    ),
    "UTF-16 that does not say so": (
        PORTAL.encode("utf-16-le"),
        "it holds zero bytes, as UTF-16 does: save it as UTF-8",
    ),
    "empty": (b"\n", "it is empty"),
}


@pytest.mark.parametrize(("content", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_without_a_secret_is_a_mistake(
    content: bytes | None, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)

    assert mistakes(CALLS_BITRIX24_URL_FILE=str(file)) == [
        f"CALLS_BITRIX24_URL_FILE: cannot be read: {file}: {why}"
    ]


def test_a_folder_is_no_secret(tmp_path: Path) -> None:
    assert mistakes(CALLS_RABBITMQ_URL_FILE=str(tmp_path)) == [
        f"CALLS_RABBITMQ_URL_FILE: cannot be read: {tmp_path}: is a directory"
    ]


def test_a_secret_where_a_files_name_should_be_is_not_repeated() -> None:
    assert mistakes(CALLS_RABBITMQ_URL_FILE=BROKER) == [
        "CALLS_RABBITMQ_URL_FILE: cannot be read: it is an address: name the file that holds it"
    ]


def test_what_is_no_secret_is_not_read_from_files(tmp_path: Path) -> None:
    assert mistakes(CALLS_QUEUE_FILE=str(tmp_path)) == [
        "CALLS_QUEUE_FILE: there is no such setting: did you mean CALLS_QUEUE?"
    ]


# --- mistakes

NO_BROKER = "CALLS_RABBITMQ_URL: is no AMQP address: write amqp://user:password@host/"
CUT_SHORT = (
    "is cut short by a character of its password: "
    "write # as %23, / as %2F, ? as %3F, [ as %5B, ] as %5D"
)
COMMA = "; a comma in a password is written %2C"
SECOND = NO_BROKER.replace("is no", "entry 2 of 2 is no") + COMMA
NO_PORTAL = "CALLS_BITRIX24_URL: is no webhook address: write https://portal/rest/<user>/<secret>/"
V3 = (
    "CALLS_BITRIX24_URL: is an address of REST 3.0, which has no telephony: "
    "write https://portal/rest/<user>/<secret>/"
)
BEHIND = "CALLS_BITRIX24_URL: has something behind the path: end it with the secret"
GROWING = "CALLS_RETRY_DELAYS_S: must be whole seconds that grow, as 5,30,300"
REGION = "CALLS_DEFAULT_REGION: is no region: write two letters, as US or DE"
DRAIN = "CALLS_DRAIN_S: must be more than CALLS_TIMEOUT_S, or a stop cuts calls off"
HTTP = (
    "CALLS_BITRIX24_URL: would send the secret unencrypted: write https, "
    "or set CALLS_ALLOW_HTTP=true for a mock"
)
HOURS = "CALLS_CALLING_HOURS: is no span of hours: write it as 09:00-21:00"
NO_HOURS = (
    "CALLS_CALLING_HOURS: ends when it begins: leave it empty for any time, or write 00:00-24:00"
)
A_DAY = "is no day: write days out of mon,tue,wed,thu,fri,sat,sun, or spans as mon-fri"
ZONE = "CALLS_TIME_ZONE: is no time zone: write an IANA name with its capitals, as Europe/Berlin"
A_COUNTRY = "is no country: write two capital letters each, as US,CA"
WHOLE = "Input should be a valid integer, unable to parse string as an integer"

WRONG: dict[str, tuple[str, str, str]] = {
    "broker over http": ("rabbitmq_url", "http://rabbit/", NO_BROKER),
    "broker without host": ("rabbitmq_url", "amqp:///vhost", NO_BROKER),
    "broker as a host": ("rabbitmq_url", "rabbit:5672", NO_BROKER),
    "broker with a bad port": (
        "rabbitmq_url",
        "amqp://calls:hush-hush@rabbit:port/",
        "CALLS_RABBITMQ_URL: is no address that can be read",
    ),
    "broker with a bad bracket": (
        "rabbitmq_url",
        "amqp://calls:hush-hush@[::1/",
        "CALLS_RABBITMQ_URL: is no address that can be read",
    ),
    "broker with a slash in its password": (
        "rabbitmq_url",
        "amqp://calls:12/34@rabbit/",
        f"CALLS_RABBITMQ_URL: {CUT_SHORT}",
    ),
    "broker with a bracket in its password": (
        "rabbitmq_url",
        "amqp://calls:hush[hush@rabbit/",
        f"CALLS_RABBITMQ_URL: {CUT_SHORT}",
    ),
    "broker with a fragment": (
        "rabbitmq_url",
        f"{BROKER}#x",
        "CALLS_RABBITMQ_URL: has something behind a #: write # as %23",
    ),
    "broker on two lines": (
        "rabbitmq_url",
        f"{BROKER}\n{BROKER}",
        "CALLS_RABBITMQ_URL: holds a blank or a line break: write one line",
    ),
    "second of two brokers": (
        "rabbitmq_url",
        f"{BROKER},rabbit:5672",
        SECOND,
    ),
    "broker with a comma in its password": (
        "rabbitmq_url",
        "amqp://calls:12,34@rabbit/",
        SECOND,
    ),
    "first of three brokers": (
        "rabbitmq_url",
        f"amqp://rabbit:port/,{BROKER},{BROKER}",
        f"CALLS_RABBITMQ_URL: entry 1 of 3 is no address that can be read{COMMA}",
    ),
    "nothing behind a comma": (
        "rabbitmq_url",
        f"{BROKER},",
        SECOND,
    ),
    "ledger with a hash in its password": (
        "ledger_url",
        "postgresql://calls:hush#hush@db/calls",
        f"CALLS_LEDGER_URL: {CUT_SHORT}",
    ),
    "portal of REST 3.0": ("bitrix24_url", "https://portal.example/rest/api/1/s3cr3t/", V3),
    "portal of REST 3.0 with a method": (
        "bitrix24_url",
        "https://portal.example/rest/api/1/s3cr3t/tasks.task.get",
        V3,
    ),
    "portal over ftp": ("bitrix24_url", "ftp://portal.example/", NO_PORTAL),
    "portal as a host": ("bitrix24_url", "portal.example/rest/1/s3cr3t/", NO_PORTAL),
    "portal without host": ("bitrix24_url", "https:///rest/1/s3cr3t/", NO_PORTAL),
    "portal with a query": ("bitrix24_url", f"{PORTAL}?auth=s3cr3t", BEHIND),
    "portal with a fragment": ("bitrix24_url", f"{PORTAL}#top", BEHIND),
    "portal with a port too high": (
        "bitrix24_url",
        "https://portal.example:99999/",
        "CALLS_BITRIX24_URL: is no address that can be read",
    ),
    "region in small letters": ("default_region", "de", REGION),
    "region in words": ("default_region", "Germany", REGION),
    "region of nobody": ("default_region", "XX", REGION),
    "hours without minutes": ("calling_hours", "9-21", HOURS),
    "hours with one end": ("calling_hours", "09:00", HOURS),
    "two spans of hours": ("calling_hours", "09:00-12:00,13:00-18:00", HOURS),
    "hours of a longer day": ("calling_hours", "09:00-24:01", HOURS),
    "hours from the end of the day": ("calling_hours", "24:00-06:00", HOURS),
    "hours in other digits": ("calling_hours", "٠٩:00-21:00", HOURS),
    "hours of no time at all": ("calling_hours", "09:00-09:00", NO_HOURS),
    "days in full": ("calling_days", "monday", f"CALLS_CALLING_DAYS: {A_DAY}"),
    "days with a comma too many": (
        "calling_days",
        "mon,",
        f"CALLS_CALLING_DAYS: entry 2 of 2 {A_DAY}",
    ),
    "days in a chain": (
        "calling_days",
        "sun,mon-tue-wed",
        f"CALLS_CALLING_DAYS: entry 2 of 2 {A_DAY}",
    ),
    "zone as an offset": ("time_zone", "+03:00", ZONE),
    "zone in small letters": ("time_zone", "europe/berlin", ZONE),
    "zone as a file": ("time_zone", "../../../etc/passwd", ZONE),
    "zone as a folder": ("time_zone", "America", ZONE),
    "zone that only this machine has": ("time_zone", "localtime", ZONE),
    "country of nobody": ("countries", "XX", f"CALLS_COUNTRIES: {A_COUNTRY}"),
    "country in small letters": (
        "countries",
        "DE,at",
        f"CALLS_COUNTRIES: entry 2 of 2 {A_COUNTRY}",
    ),
    "country by its other letters": ("countries", "UK", f"CALLS_COUNTRIES: {A_COUNTRY}"),
    "country with a comma too many": (
        "countries",
        "DE,,AT",
        f"CALLS_COUNTRIES: entry 2 of 3 {A_COUNTRY}",
    ),
    "limit below nothing": (
        "max_per_number_per_day",
        "-1",
        "CALLS_MAX_PER_NUMBER_PER_DAY: Input should be greater than or equal to 0",
    ),
    "flag in words": (
        "allow_http",
        "perhaps",
        "CALLS_ALLOW_HTTP: Input should be a valid boolean, unable to interpret input",
    ),
    "rate below 0": (
        "rate_per_s",
        "-1",
        "CALLS_RATE_PER_S: Input should be greater than or equal to 0",
    ),
    "rate too high": (
        "rate_per_s",
        "10001",
        "CALLS_RATE_PER_S: Input should be less than or equal to 10000",
    ),
    "rate in words": (
        "rate_per_s",
        "two",
        "CALLS_RATE_PER_S: Input should be a valid number, unable to parse string as a number",
    ),
    "no burst": ("burst", "0", "CALLS_BURST: Input should be greater than or equal to 1"),
    "burst a fraction": ("burst", "1.5", f"CALLS_BURST: {WHOLE}"),
    "no operating time": (
        "operating_limit_s",
        "0",
        "CALLS_OPERATING_LIMIT_S: Input should be greater than 0",
    ),
    "no call at once": (
        "concurrency",
        "0",
        "CALLS_CONCURRENCY: Input should be greater than or equal to 1",
    ),
    "too many calls at once": (
        "concurrency",
        "1001",
        "CALLS_CONCURRENCY: Input should be less than or equal to 1000",
    ),
    "no time to answer": ("timeout_s", "0", "CALLS_TIMEOUT_S: Input should be greater than 0"),
    "time that is none": ("timeout_s", "nan", "CALLS_TIMEOUT_S: Input should be greater than 0"),
    "delays that shrink": ("retry_delays_s", "5,30,20", GROWING),
    "delays that repeat": ("retry_delays_s", "5,5", GROWING),
    "delays with a gap": ("retry_delays_s", "5,,30", f"CALLS_RETRY_DELAYS_S: {WHOLE}"),
    "delays in words": ("retry_delays_s", "5s", f"CALLS_RETRY_DELAYS_S: {WHOLE}"),
    "delay of nothing": (
        "retry_delays_s",
        "0,5",
        "CALLS_RETRY_DELAYS_S: Input should be greater than or equal to 1",
    ),
    "delay of more than a month": (
        "retry_delays_s",
        "2592001",
        "CALLS_RETRY_DELAYS_S: Input should be less than or equal to 2592000",
    ),
    "a name too long": (
        "queue",
        "q" * 201,
        "CALLS_QUEUE: String should have at most 200 characters",
    ),
    "no pause": (
        "pause_after",
        "0",
        "CALLS_PAUSE_AFTER: Input should be greater than or equal to 1",
    ),
    "port too high": (
        "http_port",
        "65536",
        "CALLS_HTTP_PORT: Input should be less than or equal to 65535",
    ),
    "doubts settled otherwise": (
        "when_unsure",
        "drop",
        "CALLS_WHEN_UNSURE: Input should be 'dead-letter' or 'retry'",
    ),
    "lag below 0": (
        "history_lag_s",
        "-1",
        "CALLS_HISTORY_LAG_S: Input should be greater than or equal to 0",
    ),
    "nothing remembered": (
        "ledger_retention_days",
        "0",
        "CALLS_LEDGER_RETENTION_DAYS: Input should be greater than or equal to 1",
    ),
    "a stop as long as a call": ("drain_s", "65", DRAIN),
    "a call as long as a stop": ("timeout_s", "80", DRAIN),
    "a level of nobody": (
        "log_level",
        "loud",
        "CALLS_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error'",
    ),
}


@pytest.mark.parametrize(("field", "text", "line"), WRONG.values(), ids=WRONG)
def test_a_wrong_setting_gets_one_line(field: str, text: str, line: str) -> None:
    assert mistakes(**{f"CALLS_{field.upper()}": text}) == [line]


@pytest.mark.parametrize("url", ["call-ledger.db", "sqlite:call.db", "mysql://hush-hush@db/calls"])
def test_a_ledger_that_cannot_be_is_a_mistake(url: str) -> None:
    (line,) = mistakes(CALLS_LEDGER_URL=url)

    assert line.startswith("CALLS_LEDGER_URL: ")
    assert "hush-hush" not in line


UNKNOWN: dict[str, tuple[str, str]] = {
    "misspelt": ("CALLS_RETRY_DELAY_S", "did you mean CALLS_RETRY_DELAYS_S?"),
    "an older name": ("CALLS_RABBIT_URL", "did you mean CALLS_RABBITMQ_URL?"),
    "nothing like it": ("CALLS_XYZZY", "OPERATING.md lists them all"),
}


@pytest.mark.parametrize(("name", "hint"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_setting_is_a_mistake(name: str, hint: str) -> None:
    assert mistakes(**{name: "hush-hush"}) == [f"{name}: there is no such setting: {hint}"]


def test_each_mistake_gets_a_line_of_its_own() -> None:
    assert mistakes(
        CALLS_BURST="many",
        CALLS_RABBITMQ_URL="http://calls:hush-hush@rabbit/",
        CALLS_XYZZY="1",
        CALLS_BITRIX24_URL_FILE="/nowhere",
        CALLS_RETRY_DELAYS_S="a,b,c",
    ) == [
        "CALLS_BITRIX24_URL_FILE: cannot be read: /nowhere: no such file or directory",
        "CALLS_XYZZY: there is no such setting: OPERATING.md lists them all",
        NO_BROKER,
        f"CALLS_BURST: {WHOLE}",
        f"CALLS_RETRY_DELAYS_S: {WHOLE}",
    ]


def test_what_is_missing_and_what_is_wrong_are_named_together() -> None:
    with pytest.raises(WrongSettings) as caught:
        read_settings(
            {
                "CALLS_BITRIX24_URL": "http://portal.example/rest/1/s3cr3t/",
                "CALLS_TIMEOUT_S": "90",
                "CALLS_BURST": "0",
                "CALLS_XYZZY": "1",
            },
            ("rabbitmq_url", "bitrix24_url"),
        )

    assert caught.value.mistakes == [
        "CALLS_XYZZY: there is no such setting: OPERATING.md lists them all",
        "CALLS_BURST: Input should be greater than or equal to 1",
        DRAIN,
        HTTP,
        NOT_SET["rabbitmq_url"],
    ]


def test_all_that_is_missing_is_named() -> None:
    with pytest.raises(WrongSettings) as caught:
        read_settings({}, ("rabbitmq_url", "bitrix24_url"))

    assert caught.value.mistakes == list(NOT_SET.values())


@pytest.mark.parametrize(
    "wrong", [{"CALLS_RABBITMQ_URL": "rabbit"}, {"CALLS_RABBITMQ_URL_FILE": "/nowhere"}]
)
def test_what_is_wrong_is_not_missing_too(wrong: dict[str, str]) -> None:
    with pytest.raises(WrongSettings) as caught:
        read_settings(wrong, needed=["rabbitmq_url"])

    assert len(caught.value.mistakes) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"CALLS_DRAIN_S": "20", "CALLS_TIMEOUT_S": "soon"},
        {"CALLS_BITRIX24_URL": "http://portal.example/", "CALLS_ALLOW_HTTP": "perhaps"},
    ],
    ids=str,
)
def test_nothing_is_said_of_a_setting_whose_partner_cannot_be_read(
    settings: dict[str, str],
) -> None:
    assert len(mistakes(**settings)) == 1


# --- certificates


@pytest.mark.parametrize(
    "url",
    [
        {"CALLS_BITRIX24_URL": PORTAL},
        {"CALLS_RABBITMQ_URL": "amqp://a/,amqps://b/"},
        {"CALLS_LEDGER_URL": "postgresql://u:p@db/calls?sslmode=verify-full"},
    ],
    ids=str,
)
def test_a_file_of_certificates_that_cannot_be_used_is_a_mistake(
    url: dict[str, str], tmp_path: Path
) -> None:
    empty = tmp_path / "ca.pem"
    empty.touch()

    for file, why in (
        ("/nowhere/ca.pem", "no such file or directory"),
        (str(empty), "it holds no certificates as PEM"),
    ):
        with pytest.raises(WrongSettings) as caught:
            read_settings(url, ca_file=file)

        assert caught.value.mistakes == [f"SSL_CERT_FILE: cannot be read: {file}: {why}"]


def test_where_nothing_is_encrypted_certificates_do_not_matter() -> None:
    settings = read_settings({"CALLS_BITRIX24_URL": "http://[::1]:8024/"}, ca_file="/nowhere")

    assert settings.needed("bitrix24_url") == "http://[::1]:8024/"


# --- the portal's address

ADDRESSES: dict[str, tuple[str, str]] = {
    "as it should be": (PORTAL, PORTAL),
    "without the last slash": (PORTAL.rstrip("/"), PORTAL),
    "with too many": (f"{PORTAL}//", PORTAL),
    "with our method": (f"{PORTAL}voximplant.infocall.startwithtext", PORTAL),
    "with our method and a suffix": (f"{PORTAL}voximplant.infocall.startwithtext.json", PORTAL),
    "with our method and a slash": (f"{PORTAL}voximplant.infocall.startwithtext/", PORTAL),
    "with the portal's example": (f"{PORTAL}crm.lead.list.json", PORTAL),
    "with a method of one word": (f"{PORTAL}profile", PORTAL),
    "with a method of one word and a suffix": (f"{PORTAL}profile.json", PORTAL),
    "with a batch": (f"{PORTAL}batch.xml/", PORTAL),
    "with a method in capitals": (f"{PORTAL}im.v2.Chat.GET.XML", PORTAL),
    "with another base and a method": (
        "https://gateway.example/v2/rest/1/s3cr3t/scope",
        "https://gateway.example/v2/rest/1/s3cr3t/",
    ),
    "without a webhook, with a method": (
        "https://mock.example/v1.2/crm.lead.list",
        "https://mock.example/v1.2/",
    ),
    "with another base": (
        "https://gateway.example/bitrix/v2/rest/1/s3cr3t/",
        "https://gateway.example/bitrix/v2/rest/1/s3cr3t/",
    ),
    "without a path": ("https://portal.example", "https://portal.example/"),
    "with a port": ("https://portal.example:8443/a/", "https://portal.example:8443/a/"),
}


@pytest.mark.parametrize(("written", "kept"), ADDRESSES.values(), ids=ADDRESSES)
def test_the_portals_address_is_kept_up_to_the_methods_name(written: str, kept: str) -> None:
    settings = read_settings({"CALLS_BITRIX24_URL": written})

    assert settings.needed("bitrix24_url") == kept


LOOPBACK = ["localhost", "127.0.0.1:8024", "127.8.8.8", "[::1]:8024", "portal.localhost"]
ELSEWHERE = [
    "portal.example",
    "10.0.0.7",
    "0.0.0.0:8024",
    "[2001:db8::1]",
    "localhost.example",
    "mylocalhost",
    "127.0.0.1.example",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_plain_http_is_fine_on_this_machine(host: str) -> None:
    url = f"http://{host}/rest/1/s3cr3t/"

    assert read_settings({"CALLS_BITRIX24_URL": url}).needed("bitrix24_url") == url


@pytest.mark.parametrize("host", ELSEWHERE)
def test_plain_http_to_another_machine_is_a_mistake(host: str) -> None:
    assert mistakes(CALLS_BITRIX24_URL=f"http://{host}/rest/1/s3cr3t/") == [HTTP]


@pytest.mark.parametrize("host", ELSEWHERE)
def test_plain_http_to_another_machine_can_be_allowed(host: str) -> None:
    url = f"http://{host}/rest/1/s3cr3t/"

    settings = read_settings({"CALLS_BITRIX24_URL": url, "CALLS_ALLOW_HTTP": "true"})

    assert settings.needed("bitrix24_url") == url


# --- secrets

NOT_SET: dict[str, str] = {
    "rabbitmq_url": "CALLS_RABBITMQ_URL: is not set: write amqp://user:password@host:5672/",
    "bitrix24_url": "CALLS_BITRIX24_URL: is not set: write https://portal/rest/<user>/<secret>/",
}


def test_what_is_needed_and_not_set_is_a_mistake() -> None:
    with pytest.raises(WrongSettings) as broker:
        read_settings({}).needed("rabbitmq_url")
    with pytest.raises(WrongSettings) as portal:
        read_settings({}).needed("bitrix24_url")

    assert broker.value.mistakes == [NOT_SET["rabbitmq_url"]]
    assert portal.value.mistakes == [NOT_SET["bitrix24_url"]]


def test_settings_do_not_show_their_secrets() -> None:
    settings = read_settings({"CALLS_RABBITMQ_URL": BROKER, "CALLS_BITRIX24_URL": PORTAL})

    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hush-hush" not in shown
        assert "s3cr3t" not in shown
    assert settings.needed("rabbitmq_url") == BROKER
    assert settings.needed("bitrix24_url") == PORTAL


SECRETIVE: dict[str, dict[str, str]] = {
    "a wrong scheme": {"CALLS_RABBITMQ_URL": "http://calls:hush-hush@rabbit/"},
    "a wrong port": {"CALLS_RABBITMQ_URL": "amqp://calls:hush-hush@rabbit:port/"},
    "a bad bracket": {"CALLS_RABBITMQ_URL": "amqp://calls:hush-hush@[::1/"},
    "no address": {"CALLS_BITRIX24_URL": "s3cr3t"},
    "a secret in a query": {"CALLS_BITRIX24_URL": "https://portal.example/?auth=s3cr3t"},
    "plain http": {"CALLS_BITRIX24_URL": "http://portal.example/rest/1/s3cr3t/"},
    "another setting is wrong": {
        "CALLS_RABBITMQ_URL": BROKER,
        "CALLS_BITRIX24_URL": PORTAL,
        "CALLS_BURST": "0",
        "CALLS_DRAIN_S": "1",
    },
    "two that do not go together": {
        "CALLS_RABBITMQ_URL": BROKER,
        "CALLS_BITRIX24_URL": PORTAL,
        "CALLS_DRAIN_S": "1",
    },
    "a secret in the wrong place": {"CALLS_BURST": BROKER, "CALLS_WHEN_UNSURE": PORTAL},
}


@pytest.mark.parametrize("environment", SECRETIVE.values(), ids=SECRETIVE)
def test_no_mistake_shows_a_secret(environment: dict[str, str]) -> None:
    with pytest.raises(WrongSettings) as caught:
        read_settings(environment)

    for shown in (str(caught.value), repr(caught.value)):
        assert "hush-hush" not in shown
        assert "s3cr3t" not in shown


def test_settings_made_by_hand_do_not_quote_what_is_wrong_either() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"rabbitmq_url": "http://calls:hush-hush@rabbit/", "burst": BROKER})

    assert "hush-hush" not in str(caught.value)
