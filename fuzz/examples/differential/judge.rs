//! The process of `Judge.java`: cases go in by a thread of their own, answers come out in their order.

use std::collections::VecDeque;
use std::io::{BufReader, BufWriter, Read as _, Result, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use crate::cases::Case;

/// Cases that may be on their way, so that neither side waits for the other.
const UNDER_WAY: usize = 256;

pub(crate) struct Judge {
    process: Child,
    cases: Option<BufWriter<ChildStdin>>,
    answers: BufReader<ChildStdout>,
}

fn write(to: &mut impl std::io::Write, case: &Case) -> Result<()> {
    to.write_all(&(case.bytes.len() as u32 + 1).to_be_bytes())?;
    to.write_all(&[case.kind as u8])?;
    to.write_all(&case.bytes)
}

impl Judge {
    pub(crate) fn start(command: &[String]) -> Result<Judge> {
        let mut process = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (cases, answers) = (process.stdin.take(), process.stdout.take());
        Ok(Judge {
            process,
            cases: cases.map(BufWriter::new),
            answers: BufReader::new(answers.expect("it is piped")),
        })
    }

    fn answer(&mut self) -> Result<String> {
        let mut size = [0; 4];
        self.answers.read_exact(&mut size)?;
        let mut text = vec![0; u32::from_be_bytes(size) as usize];
        self.answers.read_exact(&mut text)?;
        String::from_utf8(text).map_err(std::io::Error::other)
    }

    pub(crate) fn ask(&mut self, case: &Case) -> Result<String> {
        let cases = self.cases.as_mut().expect("it is open until all are asked");
        write(cases, case)?;
        cases.flush()?;
        self.answer()
    }

    /// Asks every case, and hands each on with its answer.
    pub(crate) fn ask_all(
        &mut self,
        cases: impl Iterator<Item = (u64, Case)>,
        mut each: impl FnMut(u64, &Case, &str),
    ) -> Result<()> {
        let mut input = self.cases.take().expect("all are asked once");
        let (sender, receiver) = mpsc::sync_channel::<Vec<Case>>(UNDER_WAY);
        let writer = thread::spawn(move || -> Result<()> {
            for chunk in receiver {
                chunk.iter().try_for_each(|case| write(&mut input, case))?;
                input.flush()?;
            }
            Ok(())
        });
        let mut waiting = VecDeque::new();
        let mut chunk = Vec::new();
        for (number, case) in cases {
            chunk.push(case.clone());
            waiting.push_back((number, case));
            if chunk.len() == 16 {
                // a writer that is gone has met the judge's end, which the next answer tells
                let _ = sender.send(std::mem::take(&mut chunk));
            }
            while waiting.len() > UNDER_WAY {
                self.take_one(&mut waiting, &mut each)?;
            }
        }
        let _ = sender.send(chunk);
        drop(sender);
        while !waiting.is_empty() {
            self.take_one(&mut waiting, &mut each)?;
        }
        writer.join().expect("the writer does not panic")
    }

    fn take_one(
        &mut self,
        waiting: &mut VecDeque<(u64, Case)>,
        each: &mut impl FnMut(u64, &Case, &str),
    ) -> Result<()> {
        let answer = self.answer()?;
        let (number, case) = waiting.pop_front().expect("an answer belongs to a case");
        each(number, &case, &answer);
        Ok(())
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        drop(self.cases.take());
        // it ends at the end of its input; if it does not, it has no more to say
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
