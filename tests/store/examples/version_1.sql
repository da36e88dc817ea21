-- A store as schema version 1 left it.
BEGIN TRANSACTION;
CREATE TABLE allinone_schema (
	version INTEGER NOT NULL
);
INSERT INTO "allinone_schema" VALUES(1);
CREATE TABLE answers (id TEXT PRIMARY KEY NOT NULL, owner TEXT NOT NULL, task TEXT NOT NULL, version TEXT NOT NULL, kind TEXT NOT NULL, created_at BIGINT NOT NULL);
INSERT INTO "answers" VALUES('ans_1','ann','chat','0123456789ab','chat',1772280003000000);
CREATE TABLE conversations (id TEXT PRIMARY KEY NOT NULL, owner TEXT NOT NULL, title TEXT NOT NULL, language TEXT NOT NULL, state BLOB, num_turns INTEGER NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL);
INSERT INTO "conversations" VALUES('conv_KE-6-OY9G6lpBnwCBxeklQ','ann','实验','zh',X'0002',2,1772280002000000,1772280007000000);
INSERT INTO "conversations" VALUES('conv_EUQxKu8zvQv9ZmYby0PfEQ','bob','','en',NULL,0,1772280009000000,1772280009000000);
CREATE TABLE feedback (id TEXT PRIMARY KEY NOT NULL, owner TEXT NOT NULL, answer_id TEXT NOT NULL UNIQUE, task TEXT NOT NULL, version TEXT NOT NULL, rating TEXT NOT NULL, comment TEXT, correction TEXT, created_at BIGINT NOT NULL);
INSERT INTO "feedback" VALUES('fb_-xKFA3ReZkbXwKpk-r2INQ','ann','ans_1','chat','0123456789ab','up','好',NULL,1772280008000000);
CREATE TABLE turns (id TEXT PRIMARY KEY NOT NULL, conversation_id TEXT NOT NULL, number INTEGER NOT NULL, text TEXT NOT NULL, reply TEXT NOT NULL, mood TEXT, finish_reason TEXT NOT NULL, task_version TEXT NOT NULL, answer_id TEXT NOT NULL, created_at BIGINT NOT NULL, FOREIGN KEY (conversation_id) REFERENCES conversations (id) ON DELETE CASCADE, UNIQUE (conversation_id, number));
INSERT INTO "turns" VALUES('turn_HLjcelFrzRSm36dAS8dZdg','conv_KE-6-OY9G6lpBnwCBxeklQ',1,'今天的实验终于成功了，太棒了！','恭喜你！','{"label": "\u6b63\u9762", "name": "positive", "emoji": "\ud83d\ude04", "probs": {"\u6b63\u9762": 0.75, "\u8d1f\u9762": 0.25}, "p_max": 0.75}','stop','0123456789ab','ans_1',1772280004000000);
INSERT INTO "turns" VALUES('turn_kkHhHwjlDvcYTFhrM8s1nA','conv_KE-6-OY9G6lpBnwCBxeklQ',2,'a' || char(16) || '0b''; --','',NULL,'cancelled','0123456789ab','ans_2',1772280006000000);
CREATE INDEX conversations_of_owner ON conversations (owner, updated_at, id);
CREATE INDEX answers_by_age ON answers (created_at);
CREATE INDEX feedback_of_owner ON feedback (owner, created_at);
COMMIT;
