import pytest

from fluxd.core.cron import read_cron
from fluxd.core.cronwords import cron_in_words, schedule_in_words
from fluxd.core.spec import Schedule


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 6 * * *", "every day at 06:00 Paris"),
        ("@daily", "every day at 00:00 Paris"),
        ("0 6 * * 1-5", "Monday to Friday at 06:00 Paris"),
        ("0 6,18 * * sat,sun", "Saturday and Sunday at 06:00 and 18:00 Paris"),
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("0 * * * *", "every hour"),
        ("15 * * * *", "every hour at :15"),
        ("5-59/10 * * * *", "every 10 minutes from :05 to :55 of every hour"),
        ("*/5 * * * mon", "every 5 minutes, on Monday"),
        ("0 */2 * * *", "every 2 hours from 00:00 to 22:00 Paris"),
        ("*/15 9-17 * * *", "every 15 minutes from 09:00 to 17:45 Paris"),
        ("0 0 1 * *", "on day 1 of the month at 00:00 Paris"),
        ("0 0 1 1 *", "on day 1 in January at 00:00 Paris"),
        ("0 0 l * *", "on the last day of the month at 00:00 Paris"),
        ("0 0 13 * 5", "on day 13 of the month or on Friday at 00:00 Paris"),
        ("0 5-5 * * *", "every day at 05:00 Paris"),
        ("7-7 * * * *", "every hour at :07"),
        ("0 0 3-3 * *", "on day 3 of the month at 00:00 Paris"),
        ("0 0 */10 * 1", "on days 1, 11, 21 and 31 of the month and on Monday at 00:00 Paris"),
        ("0 0 1-31 * 1", "every day at 00:00 Paris"),
        ("0 0 * * fri#2", "on the second Friday of the month at 00:00 Paris"),
        ("0 0 * 6-8 *", "every day in June to August at 00:00 Paris"),
    ],
)
def test_cron_in_words(expression: str, words: str) -> None:
    assert cron_in_words(read_cron(expression), "Europe/Paris").removeprefix("on ") == words.removeprefix("on ")


def test_schedules_that_are_no_cron() -> None:
    assert schedule_in_words(Schedule()) == "only when triggered"
    assert schedule_in_words(Schedule("once")) == "once"
    intervals = {5400: "90 minutes", 60: "minute", 3600: "hour", 0.5: "0.5 s", 172800: "2 days", 86461: "1 d 1 m"}
    for seconds, words in intervals.items():
        assert schedule_in_words(Schedule("interval", seconds=seconds)) == f"every {words}"
