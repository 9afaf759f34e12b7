"""URLs as a person, or somebody with a plan, might write them: mostly wrong, and often nearly right."""

from random import Random

_BEGINNINGS = ("http://", "https://", "mock://", "litellm://", "HTTP://", "file://", "://", "")
_HOSTS = ("a", "api.example.com", "127.0.0.1", "[::1]", "[fe80::1]", "[::ffff:1.2.3.4]", "[v1.a]", "xn--a", "-a", "a-")
_PIECES = (
    *_BEGINNINGS,
    *_HOSTS,
    *(
        "/",
        "//",
        "/v1",
        "/./",
        "/..",
        ".",
        ":",
        ":80",
        ":0",
        ":65535",
        ":65536",
        ":080",
        ":+1",
        "@",
        "u:p@",
        "#",
        "%2f",
    ),
    *("?", "&", "=", "latency=1s", "tokens=5", "fail=0.1", "fail=2", "status=429", "status=200", "unknown=1"),
    *(" ", "\t", "\n", "\\", "'", '"', "<", "{", "|", "^", "`", "~", "!", "$", "*", "(", ",", ";", "\x00", "\x7f", "é"),
    *("%2f", "[", "]", "_", "x" * 60),
)


def any_url(random: Random) -> str:
    """Of a length that the CRD's schema takes, so that the rules are asked."""
    text = random.choice(_BEGINNINGS) + (random.choice(_HOSTS) if random.random() < 0.7 else "")
    text += "".join(random.choice(_PIECES) for _ in range(random.randrange(5)))
    return text if 8 <= len(text) <= 1024 else "https://a"
