//! What goes wrong in a story: with the market, with calls to providers, with machines, and with the daemon.

use bursar_model::{IdGen, InstanceId, ProviderName, Span, Timestamp};
use bursar_providers::{
    ErrorKind, Provider,
    faulty::{Call, Fault},
};

use super::{Command, Play, Wrong, names::STRAYS, words::Words};
use crate::{
    cloud::SimCloud,
    life::{Boundary, Side, UnderWay},
    world::INSTALLATION,
};

/// Sets the ids of strays apart from those of the daemon.
const STRAY_SEED: u64 = 99;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        usage: "price PART $PRICE",
        does: "From now on a part of the market costs this. A PART is named by any of a provider, a zone, a type, `spot` \
               and `on-demand`, in any order.",
        run: price,
    },
    Command {
        usage: "sell-out PART for SPAN",
        does: "A part of the market has nothing to rent for so long.",
        run: sell_out,
    },
    Command {
        usage: "refuse CALL throttled|auth|invalid|unavailable|capacity PART|quota PART [at PROVIDER] [xN]",
        does: "The next CALL (`launch`, `terminate`, `list` or `offerings`) is refused, or the next N are. Capacity and \
               quota speak of a part of the market.",
        run: refuse,
    },
    Command {
        usage: "lose request|reply CALL [at PROVIDER] [xN]",
        does: "The next such call never arrives, or it takes effect and nobody hears of it.",
        run: lose,
    },
    Command {
        usage: "delay CALL SPAN [at PROVIDER] [xN]",
        does: "The next such call takes so much longer.",
        run: delay,
    },
    Command {
        usage: "stale list|offerings [at PROVIDER] [xN]",
        does: "The next such call answers what it last answered.",
        run: stale,
    },
    Command {
        usage: "partial list [at PROVIDER] [xN]",
        does: "The next listing leaves every second machine out.",
        run: partial,
    },
    Command {
        usage: "cloud-down [PROVIDER] for SPAN",
        does: "A provider, or all of them, answers nothing for so long; what runs goes on.",
        run: cloud_down,
    },
    Command {
        usage: "throttle [PROVIDER] for SPAN",
        does: "A provider, or all of them, refuses calls for so long, because there are too many.",
        run: throttle,
    },
    Command {
        usage: "boots fail|hang|succeed",
        does: "What becomes of machines that are launched from now on: they end, or run and never answer, or are well.",
        run: boots,
    },
    Command {
        usage: "interrupt NAME|iN [notice SPAN]",
        does: "The cloud takes an instance back, or the one that an experiment is on; at once where it gives no notice.",
        run: interrupt,
    },
    Command {
        usage: "end-by-hand NAME|iN",
        does: "Somebody ends an instance at the cloud's console.",
        run: end_by_hand,
    },
    Command {
        usage: "hang NAME|iN",
        does: "An instance hangs: its work stops, and it neither answers nor turns itself off.",
        run: hang,
    },
    Command {
        usage: "kill-agent NAME|iN",
        does: "The agent of an instance dies, and the machine turns itself off.",
        run: kill_agent,
    },
    Command {
        usage: "cut-off NAME|iN for SPAN",
        does: "Nothing passes between an instance and the daemon for so long.",
        run: cut_off,
    },
    Command {
        usage: "stray [foreign]",
        does: "A machine that nobody here asked for appears at the cloud, with our tag or, as `foreign`, with that of \
               another installation. It is called `stray` or `foreign`.",
        run: stray,
    },
    Command {
        usage: "crash [for SPAN]",
        does: "The daemon is killed, and started again after so long.",
        run: crash,
    },
    Command {
        usage: "crash-at commit|CALL before|during|after [arrives] [xN]",
        does: "The daemon is killed at its next commit or call of a kind, or at the Nth from now. `during` is while the \
               request of a call is under way: it is lost then, or `arrives` later.",
        run: crash_at,
    },
    Command { usage: "restart", does: "The daemon is started where it does not run.", run: restart },
    Command {
        usage: "depose",
        does: "Another daemon takes the store over, and this one can store nothing more.",
        run: depose,
    },
    Command { usage: "disk-full N", does: "The next N commits find the disk full.", run: disk_full },
];

fn price(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let price = words.amount()?;
    let part = play.setup.part(words)?;
    play.world().with_cloud(|cloud| cloud.set_price(&part, price));
    Ok(())
}

fn sell_out(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let span: Span = words.needed("for")?;
    let part = play.setup.part(words)?;
    let until = play.world().now() + span;
    play.world().with_cloud(|cloud| cloud.sell_out(&part, until));
    Ok(())
}

fn refuse(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let target = Target::of(words)?;
    let kind = match words.next::<String>("why")?.as_str() {
        "throttled" => ErrorKind::Throttled { retry_after: None },
        "auth" => ErrorKind::Auth,
        "invalid" => ErrorKind::Invalid,
        "unavailable" => ErrorKind::Unavailable,
        "capacity" => ErrorKind::InsufficientCapacity(play.setup.part(words)?),
        "quota" => ErrorKind::Quota(play.setup.part(words)?),
        other => return Err(format!("no provider refuses because of `{other}`")),
    };
    target.inject(play, words, &Fault::Refuse(kind))
}

fn lose(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let known = [("request", false), ("reply", true)];
    let takes_effect = words.one_of(&known).ok_or("say `request` or `reply`")?;
    let fault = if takes_effect { Fault::LoseReply } else { Fault::LoseRequest };
    Target::of(words)?.inject(play, words, &fault)
}

fn delay(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let target = Target::of(words)?;
    let fault = Fault::Delay(words.next("how long")?);
    target.inject(play, words, &fault)
}

fn stale(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let target = Target::of(words)?;
    if !matches!(target.call, Call::List | Call::Offerings) {
        return Err("only `list` and `offerings` can be stale".to_owned());
    }
    target.inject(play, words, &Fault::Stale)
}

fn partial(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let target = Target::of(words)?;
    if target.call != Call::List {
        return Err("only `list` can be partial".to_owned());
    }
    target.inject(play, words, &Fault::Partial)
}

fn call(words: &mut Words<'_>) -> Result<Call, Wrong> {
    match words.next::<String>("a call")?.as_str() {
        "launch" => Ok(Call::Launch),
        "terminate" => Ok(Call::Terminate),
        "list" => Ok(Call::List),
        "offerings" => Ok(Call::Offerings),
        other => Err(format!("no provider is called for `{other}`")),
    }
}

/// The calls that something happens to.
struct Target {
    call: Call,
    provider: Option<String>,
    times: u32,
}

impl Target {
    fn of(words: &mut Words<'_>) -> Result<Self, Wrong> {
        Ok(Self { call: call(words)?, provider: words.after("at")?, times: words.times()? })
    }

    fn inject(&self, play: &mut Play, words: &Words<'_>, fault: &Fault) -> Result<(), Wrong> {
        words.end()?;
        let named = self.provider.as_deref();
        let mut ways = play.world().ways().iter();
        let way = ways.find(|way| named.is_none_or(|name| way.name().as_str() == name));
        let way = way.ok_or("there is no such provider")?;
        for _ in 0..self.times {
            way.inject(self.call, fault.clone());
        }
        Ok(())
    }
}

fn cloud_down(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    for_a_while(play, words, SimCloud::go_down)
}

fn throttle(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    for_a_while(play, words, SimCloud::throttle)
}

/// Does something to the provider that is named, or to all of them, until a time.
fn for_a_while(
    play: &mut Play,
    words: &mut Words<'_>,
    act: fn(&SimCloud, &ProviderName, Timestamp),
) -> Result<(), Wrong> {
    let span: Span = words.needed("for")?;
    let named = words.first();
    let until = play.world().now() + span;
    let mut meant = play.setup.providers();
    meant.retain(|provider| named.is_none_or(|word| provider.as_str() == word));
    if meant.is_empty() {
        return Err("there is no such provider".to_owned());
    }
    play.world().with_cloud(|cloud| meant.iter().for_each(|provider| act(cloud, provider, until)));
    Ok(())
}

fn boots(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let known = [("fail", (1000, 0)), ("hang", (0, 1000)), ("succeed", (0, 0))];
    let (fail, hang) = words.one_of(&known).ok_or("say `fail`, `hang` or `succeed`")?;
    let troubles = play.setup.troubles();
    (troubles.boot_failures_per_mille, troubles.boot_hangs_per_mille) = (fail, hang);
    play.trouble();
    Ok(())
}

fn interrupt(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let instance = play.instance_of(words)?;
    let notice = words.after("notice")?;
    play.world().with_cloud(|cloud| cloud.interrupt(instance, notice));
    Ok(())
}

fn end_by_hand(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let instance = play.instance_of(words)?;
    play.world().with_cloud(|cloud| cloud.end_by_hand(instance));
    Ok(())
}

fn hang(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let instance = play.instance_of(words)?;
    play.world().with_cloud(|cloud| cloud.hang(instance));
    Ok(())
}

fn kill_agent(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let instance = play.instance_of(words)?;
    play.world().with_cloud(|cloud| cloud.kill_agent(instance));
    Ok(())
}

fn cut_off(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let instance = play.instance_of(words)?;
    let span = words.needed("for")?;
    play.world().cut_off(instance, span);
    Ok(())
}

fn stray(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let [ours, foreign] = STRAYS;
    let is_foreign = words.has(foreign);
    let (name, installation) = if is_foreign { (foreign, "another") } else { (ours, INSTALLATION) };
    // Two that appear at once differ by their seeds.
    let stray = IdGen::new(STRAY_SEED + u64::from(is_foreign)).instance(play.world().now());
    play.world().with_cloud(|cloud| cloud.add_stray(stray, installation));
    play.names.call_instance(stray, name);
    Ok(())
}

fn crash(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let span: Option<Span> = words.after("for")?;
    play.world().crash();
    if let Some(span) = span {
        play.pass(span);
        play.world().restart();
    }
    Ok(())
}

fn crash_at(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let boundary = if words.has("commit") { Boundary::Commit } else { Boundary::Call(call(words)?) };
    let sides = [("before", Side::Before), ("during", Side::During), ("after", Side::After)];
    let side = words.one_of(&sides).ok_or("say `before`, `during` or `after`")?;
    if !boundary.sides().contains(&side) {
        return Err("a commit is a single moment: say `before` or `after`".to_owned());
    }
    let under_way = if words.has("arrives") { UnderWay::Arrives } else { UnderWay::Lost };
    let after = words.times()? - 1;
    words.end()?;
    play.world().set_under_way(under_way);
    play.world().crash_at_next(boundary, after, side);
    Ok(())
}

fn restart(play: &mut Play, _: &mut Words<'_>) -> Result<(), Wrong> {
    play.world().restart();
    let is_up = play.world().is_up();
    play.tell_unless(is_up, "the daemon does not come up");
    Ok(())
}

fn depose(play: &mut Play, _: &mut Words<'_>) -> Result<(), Wrong> {
    play.world().depose();
    Ok(())
}

fn disk_full(play: &mut Play, words: &mut Words<'_>) -> Result<(), Wrong> {
    let commits = words.next("how many commits")?;
    play.world().refuse_commits(commits);
    Ok(())
}

impl Play {
    /// The instance of this name, or the one that the experiment of this name is on or that is on its way for it.
    pub(super) fn instance_of(&mut self, words: &mut Words<'_>) -> Result<InstanceId, Wrong> {
        let name: String = words.next("an instance or experiment")?;
        if let Some(instance) = self.names.instance(&name) {
            return Ok(instance);
        }
        let experiment = self.names.experiment(&name)?;
        let fleet = self.world().fleet();
        let on = fleet.attempts.values().find(|attempt| attempt.experiment == experiment);
        let on_its_way = fleet.instances.values().find(|instance| instance.shares.contains_key(&experiment));
        let found =
            on.map(|attempt| attempt.nodes[0].instance).or_else(|| on_its_way.map(|instance| instance.id));
        found.ok_or_else(|| format!("{name} is on no instance"))
    }
}
