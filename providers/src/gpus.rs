//! The names and memory of GPUs as everybody knows them. Each cloud has spellings of its own, and some state what a program
//! can use of the memory rather than what the card is sold with: an L4 of 24 GB is 22,888 MiB on EC2.

use bursar_model::{AcceleratorName, Accelerators};

/// The names that all clouds share, and the memory in GiB that each is sold with.
const SOLD: &[(&str, &[u32])] = &[
    ("A10", &[24]),
    ("A100", &[40, 80]),
    ("A10G", &[24]),
    ("B200", &[192]),
    ("B300", &[288]),
    ("GB200", &[192]),
    ("GB300", &[288]),
    ("GH200", &[96, 144]),
    ("H100", &[80, 94, 96]),
    ("H200", &[141]),
    ("K80", &[12]),
    ("L4", &[24]),
    ("L40", &[48]),
    ("L40S", &[48]),
    ("M60", &[8]),
    ("P100", &[12, 16]),
    ("P4", &[8]),
    ("RTXPRO4500", &[32]),
    ("RTXPRO6000", &[96]),
    ("T4", &[16]),
    ("T4G", &[16]),
    ("V100", &[16, 32]),
];

/// Accelerators by a cloud's words for them. `None` where that is less than one whole GPU: nobody who asks for an `L4`
/// means an eighth of one.
pub(crate) fn accelerators(name: &str, count: u32, memory_mib: u64) -> Option<Accelerators> {
    let name = common_name(name);
    let exact = u32::try_from(memory_mib.div_ceil(1024)).ok().filter(|gib| *gib > 0);
    let sold = SOLD.iter().find(|(known, _)| *known == name).map(|(_, sizes)| *sizes);
    let memory_gib = match (sold, exact) {
        (Some(sizes), Some(exact)) => Some(*sizes.iter().find(|size| is_of_size(exact, **size))?),
        // A card that comes in one size needs no word on it.
        (Some([only]), None) => Some(*only),
        (Some(_) | None, exact) => exact,
    };
    (count > 0).then(|| Accelerators { name: AcceleratorName::new(&name), count, memory_gib })
}

/// What a program can use is up to a tenth less than what the card is sold with, and never more but by rounding.
fn is_of_size(usable: u32, size: u32) -> bool {
    usable <= size + 1 && u64::from(usable) * 10 >= u64::from(size) * 9
}

/// `RTX PRO Server 6000` and `nvidia-tesla-t4` as everybody writes them.
fn common_name(name: &str) -> String {
    let plain: String = name.to_uppercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = ["NVIDIA", "TESLA"].iter().fold(plain, |plain, vendor| plain.replacen(vendor, "", 1));
    plain.replacen("PROSERVER", "PRO", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, memory_mib: u64) -> Option<String> {
        let found = accelerators(name, 1, memory_mib)?;
        Some(format!("{}:{}", found.name, found.memory_gib.unwrap_or_default()))
    }

    #[test]
    fn all_that_ec2_has_is_named_as_everybody_names_it() {
        // As DescribeInstanceTypes answered in November 2026.
        let listed = [
            ("A100", 40960, "A100:40"),
            ("A100", 81920, "A100:80"),
            ("A10G", 22888, "A10G:24"),
            ("B200", 183_359, "B200:192"),
            ("B300", 275_040, "B300:288"),
            ("H100", 81920, "H100:80"),
            ("H200", 144_384, "H200:141"),
            ("L4", 22888, "L4:24"),
            ("L40S", 45776, "L40S:48"),
            ("RTX PRO 4500", 32768, "RTXPRO4500:32"),
            ("RTX PRO Server 6000", 98304, "RTXPRO6000:96"),
            ("T4", 16384, "T4:16"),
            ("T4g", 16384, "T4G:16"),
            ("V100", 32768, "V100:32"),
        ];
        for (name, memory_mib, ours) in listed {
            assert_eq!(shown(name, memory_mib).as_deref(), Some(ours));
        }
    }

    #[test]
    fn a_part_of_a_gpu_is_none() {
        assert_eq!(shown("L4", 2861), None);
        assert_eq!(shown("L4", 11444), None);
        assert_eq!(accelerators("L4", 0, 22888), None);
    }

    #[test]
    fn a_name_that_nobody_knows_yet_stays_with_the_memory_that_it_has() {
        assert_eq!(shown("NVIDIA X900", 200_000).as_deref(), Some("X900:196"));
    }
}
