const form =
  /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,3})\d*)?)?(?:Z|([+-])(\d\d):(\d\d))$/;
const daysOfMonth = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/**
 * Reads an instant written as ISO 8601 with a zone: a time without one would mean another moment on
 * every machine. (This room has no `Date`.)
 *
 * @returns Ms since the epoch, or undefined when the text is not an instant from 1970 on.
 */
export function parseInstant(text: string): number | undefined {
  const match = form.exec(text.trim());
  if (match === null) return undefined;
  const [year, month, day, hour, minute, second] = match
    .slice(1, 7)
    .map((part) => Number(part ?? 0));
  const [zoneHour, zoneMinute] = [Number(match[9] ?? 0), Number(match[10] ?? 0)];
  const leap = isLeap(year!) && month === 2 ? 1 : 0;
  if (day! < 1 || day! > (daysOfMonth[month! - 1] ?? 0) + leap) return undefined;
  if (hour! > 23 || minute! > 59 || second! > 59) return undefined;
  if (zoneHour > 23 || zoneMinute > 59) return undefined;
  const zoneMs = (match[8] === "-" ? -1 : 1) * (zoneHour * 60 + zoneMinute) * 60_000;
  const ms =
    daysSinceEpoch(year!, month!, day!) * 86_400_000 +
    ((hour! * 60 + minute!) * 60 + second!) * 1000 +
    Number((match[7] ?? "").padEnd(3, "0")) -
    zoneMs;
  return ms < 0 ? undefined : ms;
}

function isLeap(year: number): boolean {
  return (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
}

/** Days from 1970-01-01 in the Gregorian calendar (Hinnant's days_from_civil, years from March). */
function daysSinceEpoch(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  const dayOfEra =
    yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * 146_097 + dayOfEra - 719_468;
}
