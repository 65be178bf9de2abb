BEGIN TRANSACTION;
CREATE TABLE approvals (
	tenant_id VARCHAR(100) NOT NULL, 
	run_id VARCHAR(100) NOT NULL, 
	approval_id VARCHAR(100) NOT NULL, 
	subject VARCHAR(100) NOT NULL, 
	item INTEGER NOT NULL, 
	status VARCHAR(20) NOT NULL, 
	requested_at VARCHAR(27) NOT NULL, 
	decided_at VARCHAR(27), 
	document TEXT NOT NULL, 
	PRIMARY KEY (tenant_id, run_id, approval_id), 
	CONSTRAINT approvals_of_run FOREIGN KEY(tenant_id, run_id) REFERENCES runs (tenant_id, run_id)
);
CREATE TABLE audit_heads (
	tenant_id VARCHAR(100) NOT NULL, 
	seq BIGINT NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	PRIMARY KEY (tenant_id)
);
INSERT INTO "audit_heads" VALUES('contoso',3,'46598875bf04115842f99cbcf8cfc0979985ab0cb836bd85c09e28823fef5b8f');
CREATE TABLE audit_records (
	tenant_id VARCHAR(100) NOT NULL, 
	seq BIGINT NOT NULL, 
	entry_id VARCHAR(400) NOT NULL, 
	run_id VARCHAR(100), 
	document TEXT NOT NULL, 
	PRIMARY KEY (tenant_id, seq), 
	CONSTRAINT audit_by_entry UNIQUE (tenant_id, entry_id)
);
INSERT INTO "audit_records" VALUES('contoso',1,'run-1/spend/0/dispatch.intended','run-1','{"v":1,"tenant_id":"contoso","seq":1,"entry_id":"run-1/spend/0/dispatch.intended","type":"dispatch.intended","at":"2026-01-05T12:00:00Z","run_id":"run-1","actor":"tid:ana","body":{"step":"spend","cost_micro_usd":5},"prev":"0000000000000000000000000000000000000000000000000000000000000000","hash":"796812735170a7b90d4810fed963ee520fab35427c6336185a041c11550cd2d9"}');
INSERT INTO "audit_records" VALUES('contoso',2,'run-1/spend/1/dispatch.intended','run-1','{"v":1,"tenant_id":"contoso","seq":2,"entry_id":"run-1/spend/1/dispatch.intended","type":"dispatch.intended","at":"2026-01-05T12:00:00Z","run_id":"run-1","actor":"tid:ana","body":{"step":"spend","cost_micro_usd":5},"prev":"796812735170a7b90d4810fed963ee520fab35427c6336185a041c11550cd2d9","hash":"00c209cca947c650d197f7a5974811ef4b53083c814d03d5d1fbd9273b6177f3"}');
INSERT INTO "audit_records" VALUES('contoso',3,'run-1/spend/2/dispatch.intended','run-1','{"v":1,"tenant_id":"contoso","seq":3,"entry_id":"run-1/spend/2/dispatch.intended","type":"dispatch.intended","at":"2026-01-05T12:00:00Z","run_id":"run-1","actor":"tid:ana","body":{"step":"spend","cost_micro_usd":5},"prev":"00c209cca947c650d197f7a5974811ef4b53083c814d03d5d1fbd9273b6177f3","hash":"46598875bf04115842f99cbcf8cfc0979985ab0cb836bd85c09e28823fef5b8f"}');
CREATE TABLE budgets (
	tenant_id VARCHAR(100) NOT NULL, 
	run_id VARCHAR(100) NOT NULL, 
	limit_micro_usd BIGINT NOT NULL, 
	reserved_micro_usd BIGINT NOT NULL, 
	spent_micro_usd BIGINT NOT NULL, 
	limit_tokens BIGINT, 
	reserved_tokens BIGINT DEFAULT '0' NOT NULL, 
	spent_tokens BIGINT DEFAULT '0' NOT NULL, 
	daily_limit_micro_usd BIGINT, 
	daily_limit_tokens BIGINT, 
	PRIMARY KEY (tenant_id, run_id)
);
INSERT INTO "budgets" VALUES('contoso','run-1',100,5,0,NULL,0,0,NULL,NULL);
CREATE TABLE claims (
	tenant_id VARCHAR(100) NOT NULL, 
	subject VARCHAR(200) NOT NULL, 
	key_sha256 VARCHAR(64) NOT NULL, 
	request_sha256 VARCHAR(64) NOT NULL, 
	run_id VARCHAR(100) NOT NULL, 
	PRIMARY KEY (tenant_id, subject, key_sha256), 
	CONSTRAINT claims_of_run FOREIGN KEY(tenant_id, run_id) REFERENCES runs (tenant_id, run_id)
);
INSERT INTO "claims" VALUES('contoso','tid:ana','be2974546978e3739e6d6da85c4be9f334ce32df2b9fd4b6ff1b55c0d57e9d44','44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a','run-1');
CREATE TABLE daily_budgets (
	tenant_id VARCHAR(100) NOT NULL, 
	day VARCHAR(10) NOT NULL, 
	reserved_micro_usd BIGINT DEFAULT '0' NOT NULL, 
	spent_micro_usd BIGINT DEFAULT '0' NOT NULL, 
	reserved_tokens BIGINT DEFAULT '0' NOT NULL, 
	spent_tokens BIGINT DEFAULT '0' NOT NULL, 
	PRIMARY KEY (tenant_id, day)
);
INSERT INTO "daily_budgets" VALUES('contoso','2026-01-05',5,0,0,0);
CREATE TABLE events (
	tenant_id VARCHAR(100) NOT NULL, 
	run_id VARCHAR(100) NOT NULL, 
	seq INTEGER NOT NULL, 
	"key" VARCHAR(300) NOT NULL, 
	type VARCHAR(40) NOT NULL, 
	at VARCHAR(27) NOT NULL, 
	data TEXT NOT NULL, 
	PRIMARY KEY (tenant_id, run_id, seq), 
	CONSTRAINT events_by_key UNIQUE (tenant_id, run_id, "key"), 
	CONSTRAINT events_of_run FOREIGN KEY(tenant_id, run_id) REFERENCES runs (tenant_id, run_id)
);
INSERT INTO "events" VALUES('contoso','run-1',1,'first','step.started','2026-01-05T12:00:00.000000Z','{"step_id":"spend","attempt":1}');
INSERT INTO "events" VALUES('contoso','run-1',2,'second','step.started','2026-01-05T12:00:00.000000Z','{"step_id":"spend","attempt":1}');
INSERT INTO "events" VALUES('contoso','run-1',3,'last','step.started','2026-01-05T12:00:00.000000Z','{"step_id":"spend","attempt":1}');
INSERT INTO "events" VALUES('contoso','run-2',1,'first/2','step.started','2026-01-05T12:00:00.000000Z','{"step_id":"spend","attempt":1}');
CREATE TABLE model_results (
	tenant_id VARCHAR(100) NOT NULL, 
	run_id VARCHAR(100) NOT NULL, 
	plan_version INTEGER NOT NULL, 
	node VARCHAR(100) NOT NULL, 
	prompt_sha256 VARCHAR(64) NOT NULL, 
	requests INTEGER NOT NULL, 
	document TEXT, 
	PRIMARY KEY (tenant_id, run_id, plan_version, node, prompt_sha256)
);
CREATE TABLE permits (
	tenant_id VARCHAR(100) NOT NULL, 
	left_over BIGINT NOT NULL, 
	at_ms BIGINT NOT NULL, 
	PRIMARY KEY (tenant_id)
);
CREATE TABLE reservations (
	tenant_id VARCHAR(100) NOT NULL, 
	run_id VARCHAR(100) NOT NULL, 
	"key" VARCHAR(300) NOT NULL, 
	amount_micro_usd BIGINT NOT NULL, 
	spent_micro_usd BIGINT, 
	amount_tokens BIGINT DEFAULT '0' NOT NULL, 
	spent_tokens BIGINT, 
	day VARCHAR(10), 
	PRIMARY KEY (tenant_id, run_id, "key"), 
	CONSTRAINT reservations_of_run FOREIGN KEY(tenant_id, run_id) REFERENCES budgets (tenant_id, run_id)
);
INSERT INTO "reservations" VALUES('contoso','run-1','run-1/spend',5,NULL,0,NULL,'2026-01-05');
CREATE TABLE result_cache (
	tenant_id VARCHAR(100) NOT NULL, 
	asked_sha256 VARCHAR(64) NOT NULL, 
	run_id VARCHAR(100) NOT NULL, 
	output TEXT NOT NULL, 
	made_at VARCHAR(27) NOT NULL, 
	PRIMARY KEY (tenant_id, asked_sha256)
);
CREATE TABLE runs (
	tenant_id VARCHAR(100) NOT NULL, 
	run_id VARCHAR(100) NOT NULL, 
	status VARCHAR(20) NOT NULL, 
	created_at VARCHAR(27) NOT NULL, 
	updated_at VARCHAR(27) NOT NULL, 
	version INTEGER NOT NULL, 
	cost_micro_usd BIGINT NOT NULL, 
	last_seq INTEGER NOT NULL, 
	document TEXT NOT NULL, 
	PRIMARY KEY (tenant_id, run_id)
);
INSERT INTO "runs" VALUES('contoso','run-1','succeeded','2026-01-05T12:00:00.000000Z','2026-01-05T12:00:00.000000Z',2,0,3,'{"tenant_id":"contoso","run_id":"run-1","status":"succeeded","title":"Why did sales fall?","request_ref":{"sha256":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size_bytes":2,"media_type":"application/json"},"principal":{"tenant_id":"contoso","subject":"tid:ana","kind":"user","client_app":"cli","roles":["Runs.Submit"],"scopes":[],"actor_chain":[],"groups_known":true,"token_id":"","authenticated_at":null},"created_at":"2026-01-05T12:00:00Z","updated_at":"2026-01-05T12:00:00Z","deadline_at":"2026-01-05T13:00:00Z","finished_at":"2026-01-05T12:00:00Z","plan_version":0,"plan_ref":null,"plan_hash":null,"provenance":null,"answer_ref":null,"degraded_reason":null,"error":null,"cost_micro_usd":0,"traceparent":null,"parent_run_id":null,"rerun_from":null,"suspensions":0,"suspended_reason":null,"version":2}');
INSERT INTO "runs" VALUES('contoso','run-2','running','2026-01-05T12:00:00.000000Z','2026-01-05T12:00:00.000000Z',1,0,1,'{"tenant_id":"contoso","run_id":"run-2","status":"running","title":"Why did sales fall?","request_ref":{"sha256":"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size_bytes":2,"media_type":"application/json"},"principal":{"tenant_id":"contoso","subject":"tid:ana","kind":"user","client_app":"cli","roles":["Runs.Submit"],"scopes":[],"actor_chain":[],"groups_known":true,"token_id":"","authenticated_at":null},"created_at":"2026-01-05T12:00:00Z","updated_at":"2026-01-05T12:00:00Z","deadline_at":"2026-01-05T13:00:00Z","finished_at":null,"plan_version":0,"plan_ref":null,"plan_hash":null,"provenance":null,"answer_ref":null,"degraded_reason":null,"error":null,"cost_micro_usd":0,"traceparent":null,"parent_run_id":null,"rerun_from":null,"suspensions":0,"suspended_reason":null,"version":1}');
CREATE TABLE schema_version (
	version INTEGER NOT NULL, 
	applied_at VARCHAR(27) NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "schema_version" VALUES(6,'2026-01-05T12:00:00.000000Z');
CREATE TABLE steps (
	tenant_id VARCHAR(100) NOT NULL, 
	run_id VARCHAR(100) NOT NULL, 
	step_id VARCHAR(100) NOT NULL, 
	item INTEGER NOT NULL, 
	status VARCHAR(20) NOT NULL, 
	attempt INTEGER NOT NULL, 
	document TEXT NOT NULL, 
	PRIMARY KEY (tenant_id, run_id, step_id, item), 
	CONSTRAINT steps_of_run FOREIGN KEY(tenant_id, run_id) REFERENCES runs (tenant_id, run_id)
);
INSERT INTO "steps" VALUES('contoso','run-1','spend',-1,'succeeded',1,'{"tenant_id":"contoso","run_id":"run-1","step_id":"spend","item":null,"status":"succeeded","attempt":1,"capability":"sales.query","kind":"call","input_sha256":null,"output_ref":null,"item_count":null,"error":null,"retryable":false,"degraded":null,"reused_from":null,"approval_id":null,"started_at":"2026-01-05T12:00:00Z","finished_at":null,"cost_micro_usd":0}');
INSERT INTO "steps" VALUES('contoso','run-1','each',0,'running',1,'{"tenant_id":"contoso","run_id":"run-1","step_id":"each","item":0,"status":"running","attempt":1,"capability":"sales.query","kind":"call","input_sha256":null,"output_ref":null,"item_count":null,"error":null,"retryable":false,"degraded":null,"reused_from":null,"approval_id":null,"started_at":"2026-01-05T12:00:00Z","finished_at":null,"cost_micro_usd":0}');
CREATE TABLE tenant_versions (
	tenant_id VARCHAR(100) NOT NULL, 
	version INTEGER NOT NULL, 
	document TEXT NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	changed_by VARCHAR(200) NOT NULL, 
	changed_at VARCHAR(27) NOT NULL, 
	PRIMARY KEY (tenant_id, version)
);
CREATE INDEX runs_by_age ON runs (tenant_id, created_at, run_id);
CREATE INDEX runs_by_status ON runs (status, tenant_id, created_at, run_id);
CREATE INDEX audit_by_run ON audit_records (tenant_id, run_id, seq);
CREATE INDEX results_of_run ON result_cache (tenant_id, run_id);
CREATE INDEX approvals_by_decision ON approvals (decided_at, approval_id);
CREATE INDEX approvals_by_status ON approvals (tenant_id, status, requested_at, approval_id);
COMMIT;
