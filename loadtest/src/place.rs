//! Where people live and shop.

/// A currency that traffic is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Money {
    pub(crate) code: &'static str,
    /// Digits of the minor unit.
    pub(crate) exponent: u32,
    /// What one US dollar buys, roughly: only keeps amounts plausible.
    pub(crate) per_usd: f64,
}

impl Money {
    /// So many US dollars in this currency's minor unit, at least one.
    pub(crate) fn minor(&self, usd: f64) -> i64 {
        let minor = (usd * self.per_usd * f64::from(10_u32.pow(self.exponent))).round() as i64;
        minor.max(1)
    }
}

const USD: Money = Money { code: "USD", exponent: 2, per_usd: 1.0 };
const EUR: Money = Money { code: "EUR", exponent: 2, per_usd: 0.9 };
const GBP: Money = Money { code: "GBP", exponent: 2, per_usd: 0.78 };
const JPY: Money = Money { code: "JPY", exponent: 0, per_usd: 150.0 };
const CAD: Money = Money { code: "CAD", exponent: 2, per_usd: 1.37 };
const AUD: Money = Money { code: "AUD", exponent: 2, per_usd: 1.5 };
const CHF: Money = Money { code: "CHF", exponent: 2, per_usd: 0.88 };

/// A city with what is needed to write an address, a telephone number and a local hour.
#[derive(Debug)]
pub(crate) struct City {
    pub(crate) name: &'static str,
    pub(crate) country: &'static str,
    pub(crate) lat: f64,
    pub(crate) lon: f64,
    pub(crate) utc_offset_h: i64,
    pub(crate) money: Money,
    /// `#` stands for a digit.
    pub(crate) postal: &'static str,
    /// Four digits follow.
    pub(crate) phone: &'static str,
    /// Share of the population, in parts of [`total_weight`].
    pub(crate) weight: u32,
}

#[rustfmt::skip]
pub(crate) const CITIES: [City; 30] = [
    city("New York", "US", 40.7128, -74.0060, -5, USD, "100##", "+1212555", 95),
    city("Chicago", "US", 41.8781, -87.6298, -6, USD, "606##", "+1312555", 55),
    city("Houston", "US", 29.7604, -95.3698, -6, USD, "770##", "+1713555", 45),
    city("Los Angeles", "US", 34.0522, -118.2437, -8, USD, "900##", "+1213555", 75),
    city("Seattle", "US", 47.6062, -122.3321, -8, USD, "981##", "+1206555", 35),
    city("Miami", "US", 25.7617, -80.1918, -5, USD, "331##", "+1305555", 35),
    city("Denver", "US", 39.7392, -104.9903, -7, USD, "802##", "+1303555", 30),
    city("Atlanta", "US", 33.7490, -84.3880, -5, USD, "303##", "+1404555", 35),
    city("London", "GB", 51.5074, -0.1278, 0, GBP, "SW#A #AA", "+4477009", 95),
    city("Manchester", "GB", 53.4808, -2.2426, 0, GBP, "M# #AE", "+4477008", 40),
    city("Edinburgh", "GB", 55.9533, -3.1883, 0, GBP, "EH# #YL", "+4477007", 25),
    city("Bristol", "GB", 51.4545, -2.5879, 0, GBP, "BS# #TR", "+4477006", 20),
    city("Berlin", "DE", 52.5200, 13.4050, 1, EUR, "101##", "+49302312", 45),
    city("Munich", "DE", 48.1351, 11.5820, 1, EUR, "803##", "+49899998", 30),
    city("Paris", "FR", 48.8566, 2.3522, 1, EUR, "750##", "+33199001", 55),
    city("Lyon", "FR", 45.7640, 4.8357, 1, EUR, "690##", "+33465710", 20),
    city("Madrid", "ES", 40.4168, -3.7038, 1, EUR, "280##", "+34910001", 35),
    city("Barcelona", "ES", 41.3874, 2.1686, 1, EUR, "080##", "+34930001", 25),
    city("Rome", "IT", 41.9028, 12.4964, 1, EUR, "001##", "+39060001", 30),
    city("Milan", "IT", 45.4642, 9.1900, 1, EUR, "201##", "+39020001", 25),
    city("Amsterdam", "NL", 52.3676, 4.9041, 1, EUR, "10## AB", "+31200001", 25),
    city("Dublin", "IE", 53.3498, -6.2603, 0, EUR, "D## XY#0", "+35312001", 15),
    city("Vienna", "AT", 48.2082, 16.3738, 1, EUR, "10##", "+43100001", 20),
    city("Lisbon", "PT", 38.7223, -9.1393, 0, EUR, "1#00-0##", "+35121001", 15),
    city("Tokyo", "JP", 35.6762, 139.6503, 9, JPY, "100-00##", "+81300001", 45),
    city("Osaka", "JP", 34.6937, 135.5023, 9, JPY, "530-00##", "+81600001", 20),
    city("Toronto", "CA", 43.6532, -79.3832, -5, CAD, "M#B #J#", "+1416555", 15),
    city("Sydney", "AU", -33.8688, 151.2093, 10, AUD, "20##", "+61200001", 10),
    city("Melbourne", "AU", -37.8136, 144.9631, 10, AUD, "30##", "+61300001", 8),
    city("Zurich", "CH", 47.3769, 8.5417, 1, CHF, "80##", "+41440001", 12),
];

#[allow(clippy::too_many_arguments)] // one line of the table above
const fn city(
    name: &'static str,
    country: &'static str,
    lat: f64,
    lon: f64,
    utc_offset_h: i64,
    money: Money,
    postal: &'static str,
    phone: &'static str,
    weight: u32,
) -> City {
    City { name, country, lat, lon, utc_offset_h, money, postal, phone, weight }
}

/// Sum of the cities' weights.
pub(crate) const fn total_weight() -> u32 {
    let mut sum = 0;
    let mut i = 0;
    while i < CITIES.len() {
        sum += CITIES[i].weight;
        i += 1;
    }
    sum
}

/// The city a number below [`total_weight`] falls in.
pub(crate) fn city_at(mut weight: u32) -> usize {
    for (index, city) in CITIES.iter().enumerate() {
        match weight.checked_sub(city.weight) {
            Some(rest) => weight = rest,
            None => return index,
        }
    }
    0
}

/// Great-circle distance between two cities in kilometres.
pub(crate) fn distance_km(a: usize, b: usize) -> f64 {
    let (a, b) = (&CITIES[a], &CITIES[b]);
    let (lat_a, lat_b) = (a.lat.to_radians(), b.lat.to_radians());
    let half_lat = ((lat_b - lat_a) / 2.0).sin();
    let half_lon = ((b.lon - a.lon).to_radians() / 2.0).sin();
    let h = half_lat * half_lat + lat_a.cos() * lat_b.cos() * half_lon * half_lon;
    2.0 * 6_371.0 * h.sqrt().asin()
}

/// How likely people pay in each local hour of the day, relative to the busiest.
const ACTIVITY: [f64; 24] = [
    0.12, 0.07, 0.05, 0.04, 0.05, 0.12, 0.30, 0.55, 0.70, 0.75, 0.80, 0.92, 1.00, 0.95, 0.85, 0.82, 0.85,
    0.95, 1.00, 0.95, 0.80, 0.60, 0.40, 0.22,
];

/// Activity (0 to 1) of people whose day is `shift_h` hours later than usual.
pub(crate) fn activity(at_us: i64, utc_offset_h: i64, shift_h: i64) -> f64 {
    let hour = at_us.div_euclid(3_600_000_000) + utc_offset_h - shift_h;
    ACTIVITY[usize::try_from(hour.rem_euclid(24)).expect("between 0 and 23")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_globe() {
        let find = |name| CITIES.iter().position(|c| c.name == name).expect("in the table");
        let km = distance_km(find("London"), find("New York"));
        assert!((5_500.0..5_650.0).contains(&km), "{km}");
        assert!(distance_km(3, 3) < 1e-9);
    }

    #[test]
    fn every_currency_and_exponent_is_that_of_the_wire_contract() {
        for city in &CITIES {
            let currency: events::Currency = city.money.code.parse().expect("an active currency");
            assert_eq!(u32::from(currency.exponent()), city.money.exponent, "{}", city.money.code);
        }
    }

    #[test]
    fn weights_cover_every_city() {
        assert_eq!(city_at(0), 0);
        assert_eq!(city_at(total_weight() - 1), CITIES.len() - 1);
    }

    #[test]
    fn nights_are_quiet_where_it_is_night() {
        let noon_utc = 12 * 3_600_000_000;
        assert!(activity(noon_utc, 0, 0) > 5.0 * activity(noon_utc, -8, 0));
    }
}
