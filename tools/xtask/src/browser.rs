//! Chromium without a window, told what to do by the DevTools protocol over two pipes.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// The names of the program, by the distributions' packages.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// How to get it, for whoever has none.
const HELP: &str = "no Chromium found: apt-get install --no-install-recommends chromium fonts-dejavu-core";

/// No window, no network of its own, nothing kept. The sandbox does not work for root.
const OPTIONS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// The protocol's pipes are the file descriptors 3 and 4 of the browser, which it has from this shell.
const SCRIPT: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

/// Time for one answer, and for what a page is to show.
const LIMIT: Duration = Duration::from_secs(30);

/// How often a page is asked whether it shows it.
const INTERVAL: Duration = Duration::from_millis(100);

/// A browser with one page. Dropping it ends it.
pub(crate) struct Browser {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<Value>,
    session: String,
    last_id: u64,
    // Its profile, which goes with it.
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Starts it with an empty page of `width` × `height` pixels.
    pub(crate) fn start(width: u32, height: u32) -> Result<Browser> {
        let program = PROGRAMS.iter().find(|program| on_path(program)).context(HELP)?;
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, program]).args(OPTIONS).arg("about:blank");
        command.arg(format!("--user-data-dir={}", folder.path().display()));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        let orders = child.stdin.take().context("no pipe to the browser")?;
        let output = child.stdout.take().context("no pipe from the browser")?;
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            // Messages end with a zero byte.
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                if serde_json::from_slice(&message).is_ok_and(|message| sender.send(message).is_err()) {
                    break;
                }
            }
        });
        let mut browser =
            Browser { child, orders, answers, session: String::new(), last_id: 0, _folder: folder };
        let target = browser.ask("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.ask("Target.attachToTarget", attach)?;
        attached["sessionId"].as_str().context("no session")?.clone_into(&mut browser.session);
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        browser.ask("Emulation.setDeviceMetricsOverride", size)?;
        Ok(browser)
    }

    /// Goes to an address.
    pub(crate) fn go(&mut self, url: &str) -> Result<()> {
        let gone = self.ask("Page.navigate", json!({"url": url}))?;
        ensure!(gone["errorText"].is_null(), "{url}: {}", gone["errorText"]);
        Ok(())
    }

    /// Evaluates JavaScript in the page.
    pub(crate) fn evaluate(&mut self, script: &str) -> Result<Value> {
        let answer = self.ask("Runtime.evaluate", json!({"expression": script, "returnByValue": true}))?;
        ensure!(answer["exceptionDetails"].is_null(), "{script}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until JavaScript is true in the page.
    pub(crate) fn wait_for(&mut self, condition: &str) -> Result<()> {
        let end = Instant::now() + LIMIT;
        // While a page is loading there may be nothing to evaluate it in.
        while !matches!(self.evaluate(condition), Ok(Value::Bool(true))) {
            ensure!(Instant::now() < end, "the page does not come to: {condition}");
            thread::sleep(INTERVAL);
        }
        Ok(())
    }

    /// A picture (PNG) of what an element covers, JavaScript says which, up to a height.
    pub(crate) fn picture(&mut self, element: &str, height: f64) -> Result<Vec<u8>> {
        let found = self.evaluate(&format!(
            "(() => {{ const box = {element}.getBoundingClientRect();
             return {{x: box.x, y: box.y + window.scrollY, width: box.width, height: box.height, scale: 1}}; }})()"
        ))?;
        let mut clip = found;
        let whole = clip["height"].as_f64().context("the element covers nothing")?;
        clip["height"] = json!(whole.min(height));
        let shot = self.ask(
            "Page.captureScreenshot",
            json!({"format": "png", "clip": clip, "captureBeyondViewport": true}),
        )?;
        Ok(STANDARD.decode(shot["data"].as_str().context("no picture")?)?)
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last_id += 1;
        let mut order = json!({"id": self.last_id, "method": method, "params": params});
        if !self.session.is_empty() {
            order["sessionId"] = json!(self.session);
        }
        let mut bytes = order.to_string().into_bytes();
        bytes.push(0);
        self.orders.write_all(&bytes).context("the browser is gone")?;
        let end = Instant::now() + LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let answer = self.answers.recv_timeout(left).with_context(|| format!("no answer to {method}"))?;
            // What is not an answer to this is news that nobody asked for.
            if answer["id"] == self.last_id {
                match answer.get("error") {
                    Some(error) => bail!("{method}: {error}"),
                    None => return Ok(answer["result"].clone()),
                }
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(program)).any(|file| Path::is_file(&file))
}
