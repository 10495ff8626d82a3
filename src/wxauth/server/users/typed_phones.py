"""Phone numbers as people type them."""

from collections.abc import Sequence

import phonenumbers


def possible_numbers(text: str, *, region: str) -> Sequence[str]:
    """The numbers in E.164 that this text may mean. A number without a country code belongs to the region.

    A number without a plus may have a country code nevertheless: `8613800138001`.
    """
    meant = {text, f"+{text}"}
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return list(meant)
    return [*meant, phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)]
