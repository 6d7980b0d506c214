//! Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01, section 3.1) as
//! reports for the estimator.

use rtc::rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, SymbolTypeTcc, TransportLayerCc,
};

use crate::{
    bandwidth::{FeedbackReport, PacketResult},
    model::MediaTime,
};

/// Packets before the next one to send that feedback may name. What is older is unknown to the
/// estimator anyway.
const MAX_AGE: u64 = 4096;

/// The unit of the reference time, in microseconds.
const REFERENCE_UNIT: i64 = 64_000;

/// The reference time has 24 bits.
const REFERENCE_LAP: i64 = 1 << 24;

/// Reads the feedback of one connection, in the order of its arrival.
#[derive(Debug, Default)]
pub(super) struct FeedbackReader {
    /// The latest reference time, unwrapped.
    reference: Option<i64>,
}

impl FeedbackReader {
    /// What a message tells. `next` is the number of the next packet to send: what the message says
    /// of later packets, or of much older ones, is left out. So is everything from the place on
    /// where it is not consistent. Costs at most 65,535 steps.
    pub(super) fn read(
        &mut self,
        feedback: &TransportLayerCc,
        next: u64,
        now: MediaTime,
    ) -> FeedbackReport {
        let mut packets = vec![];
        let mut arrival_us = self.unwrap_reference(feedback.reference_time) * REFERENCE_UNIT;
        // The nearest number: it is at most half a lap from the next one.
        let behind = (next as u16).wrapping_sub(feedback.base_sequence_number).cast_signed();
        let base = next as i64 - i64::from(behind);
        let mut deltas = feedback.recv_deltas.iter();
        let count = i64::from(feedback.packet_status_count);
        for (number, symbol) in (base..base + count).zip(symbols(feedback)) {
            let has_delta = match symbol {
                SymbolTypeTcc::PacketNotReceived | SymbolTypeTcc::PacketReceivedWithoutDelta => {
                    false
                }
                SymbolTypeTcc::PacketReceivedSmallDelta
                | SymbolTypeTcc::PacketReceivedLargeDelta => true,
            };
            if has_delta {
                let Some(delta) = deltas.next() else { break };
                arrival_us += delta.delta;
            }
            let Ok(number) = u64::try_from(number) else { continue };
            if number >= next || next - number > MAX_AGE {
                continue;
            }
            if has_delta {
                packets.push(PacketResult::Received { number, arrival_us });
            } else if symbol == SymbolTypeTcc::PacketNotReceived {
                packets.push(PacketResult::Lost { number });
            }
        }
        FeedbackReport { at: now, packets }
    }

    fn unwrap_reference(&mut self, reference: u32) -> i64 {
        let reference = i64::from(reference);
        let latest = *self.reference.get_or_insert(reference);
        let half = REFERENCE_LAP / 2;
        let ahead = (reference - latest + half).rem_euclid(REFERENCE_LAP) - half;
        self.reference = Some(latest + ahead);
        latest + ahead
    }
}

/// The status of each packet, in order.
fn symbols(feedback: &TransportLayerCc) -> impl Iterator<Item = SymbolTypeTcc> {
    feedback.packet_chunks.iter().flat_map(|chunk| {
        let (repeated, listed) = match chunk {
            PacketStatusChunk::RunLengthChunk(run) => {
                (Some((run.packet_status_symbol, usize::from(run.run_length))), &[][..])
            }
            PacketStatusChunk::StatusVectorChunk(vector) => (None, &vector.symbol_list[..]),
        };
        let run =
            repeated.into_iter().flat_map(|(symbol, count)| std::iter::repeat_n(symbol, count));
        run.chain(listed.iter().copied())
    })
}

#[cfg(test)]
mod tests {
    use rtc::rtcp::transport_feedbacks::transport_layer_cc::{
        RecvDelta, RunLengthChunk, StatusChunkTypeTcc, StatusVectorChunk, SymbolSizeTypeTcc,
    };

    use super::*;
    use PacketResult::{Lost, Received};
    use SymbolTypeTcc::{
        PacketNotReceived as Missing, PacketReceivedLargeDelta as Large,
        PacketReceivedSmallDelta as Small,
    };

    fn run(symbol: SymbolTypeTcc, run_length: u16) -> PacketStatusChunk {
        PacketStatusChunk::RunLengthChunk(RunLengthChunk {
            type_tcc: StatusChunkTypeTcc::RunLengthChunk,
            packet_status_symbol: symbol,
            run_length,
        })
    }

    fn list(symbols: &[SymbolTypeTcc]) -> PacketStatusChunk {
        PacketStatusChunk::StatusVectorChunk(StatusVectorChunk {
            type_tcc: StatusChunkTypeTcc::StatusVectorChunk,
            symbol_size: SymbolSizeTypeTcc::TwoBit,
            symbol_list: symbols.to_vec(),
        })
    }

    fn feedback(
        base: u16,
        count: u16,
        chunks: Vec<PacketStatusChunk>,
        deltas: &[i64],
    ) -> TransportLayerCc {
        let delta = |delta: &i64| RecvDelta { type_tcc_packet: Small, delta: *delta };
        TransportLayerCc {
            base_sequence_number: base,
            packet_status_count: count,
            reference_time: 10,
            packet_chunks: chunks,
            recv_deltas: deltas.iter().map(delta).collect(),
            ..TransportLayerCc::default()
        }
    }

    fn read(feedback: &TransportLayerCc, next: u64) -> Vec<PacketResult> {
        FeedbackReader::default().read(feedback, next, MediaTime::default()).packets
    }

    #[test]
    fn a_message_names_each_packet_with_its_arrival_time_also_across_a_wrap() {
        let chunks = vec![run(Small, 2), list(&[Missing, Large, Missing, Small]), run(Missing, 90)];
        let feedback = feedback(65_534, 6, chunks, &[250, 500, -1000, 250]);
        let at = |number, arrival_us: i64| Received { number, arrival_us: 640_000 + arrival_us };
        let expected = [
            at(65_534, 250),
            at(65_535, 750),
            Lost { number: 65_536 },
            at(65_537, -250),
            Lost { number: 65_538 },
            at(65_539, 0),
        ];
        assert_eq!(read(&feedback, 65_540), expected);
    }

    #[test]
    fn packets_that_were_never_sent_or_long_ago_are_left_out() {
        let small = [250; 20];
        let named = |base, next| {
            let results = read(&feedback(base, 10, vec![run(Small, 10)], &small), next);
            results.len()
        };
        assert_eq!((named(0, 0), named(0, 4), named(100, 105), named(65_530, 4)), (0, 4, 5, 4));
        assert_eq!((named(0, 4096), named(0, 4101), named(0, 4106)), (10, 5, 0));
    }

    #[test]
    fn counts_that_lie_are_bounded() {
        let endless = feedback(0, 65_535, vec![run(Missing, 8191); 600], &[]);
        assert_eq!(read(&endless, 30_000).len(), 4096);
        let without_deltas = feedback(0, 8, vec![run(Small, 8)], &[250, 250]);
        assert_eq!(read(&without_deltas, 8).len(), 2);
        let short = feedback(0, 8, vec![run(Small, 2)], &[250; 8]);
        assert_eq!(read(&short, 8).len(), 2);
    }

    #[test]
    fn the_reference_time_goes_on_when_it_wraps() {
        let mut reader = FeedbackReader::default();
        let mut first = |reference_time| {
            let mut feedback = feedback(0, 1, vec![run(Small, 1)], &[0]);
            feedback.reference_time = reference_time;
            let report = reader.read(&feedback, 1, MediaTime::default());
            let Received { arrival_us, .. } = report.packets[0] else { panic!("it is lost") };
            arrival_us / REFERENCE_UNIT
        };
        let laps = [0xff_fffe, 1, 0xff_ffff, 2].map(&mut first);
        assert_eq!(laps, [0xff_fffe, 0x100_0001, 0xff_ffff, 0x100_0002]);
    }
}
